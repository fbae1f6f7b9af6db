/* The process that keeps a pod's namespaces open. Static, so that the image holds this one file. */
#include <signal.h>
#include <unistd.h>

static void leave(int signal_number) { (void)signal_number; _exit(0); }

int main(void) {
    signal(SIGINT, leave);
    signal(SIGTERM, leave);
    signal(SIGCHLD, SIG_IGN); /* children of the pod's processes are reaped by the kernel */
    for (;;) pause();
}

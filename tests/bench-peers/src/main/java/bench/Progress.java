package bench;

import java.io.IOException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Counts records and prints "first" and "last" on stdout, as the raw loop of the benchmark does. The program that started
 * this process reads its CPU time and memory at these moments, and ends it by closing its stdin.
 */
final class Progress {
    private final long expected;
    private final AtomicLong count = new AtomicLong();
    private final AtomicBoolean started = new AtomicBoolean();

    Progress(long expected) {
        this.expected = expected;
    }

    /** Records have arrived. */
    void start() {
        if (!started.get() && started.compareAndSet(false, true)) {
            print("first");
        }
    }

    /** This many more records are finished. */
    void finished(long records) {
        long now = count.addAndGet(records);
        if (now >= expected && now - records < expected) {
            print("last");
        }
    }

    boolean isComplete() {
        return count.get() >= expected;
    }

    private static void print(String word) {
        System.out.println(word);
        System.out.flush();
    }

    /** Returns when stdin ends. */
    static void awaitEnd() {
        try {
            while (System.in.read() >= 0) {
                // Nothing is ever written there.
            }
        } catch (IOException e) {
            // The same as the end.
        }
    }

    /** Ends the process when stdin ends, even if other threads run. */
    static void endWithStdin() {
        Thread thread = new Thread(() -> {
            awaitEnd();
            Runtime.getRuntime().halt(0);
        });
        thread.setDaemon(true);
        thread.start();
    }
}

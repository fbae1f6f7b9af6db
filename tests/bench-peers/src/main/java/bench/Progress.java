package bench;

import java.io.IOException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Counts records and says "first" and "last" on stdout, as the raw loop of the benchmark does. Whoever started this process
 * reads its CPU time and memory at these moments, and ends it by the end of its stdin.
 */
final class Progress {
    private final long expected;
    private final AtomicLong count = new AtomicLong();
    private final AtomicBoolean begun = new AtomicBoolean();

    Progress(long expected) {
        this.expected = expected;
    }

    /** Records are there. */
    void begin() {
        if (!begun.get() && begun.compareAndSet(false, true)) {
            say("first");
        }
    }

    /** So many records are finished. */
    void finished(long records) {
        long now = count.addAndGet(records);
        if (now >= expected && now - records < expected) {
            say("last");
        }
    }

    boolean isComplete() {
        return count.get() >= expected;
    }

    private static void say(String word) {
        System.out.println(word);
        System.out.flush();
    }

    /** Returns when stdin ends. */
    static void awaitEnd() {
        try {
            while (System.in.read() >= 0) {
                // Nothing is ever said to us.
            }
        } catch (IOException e) {
            // As good as the end.
        }
    }

    /** Ends the process when stdin ends, whatever else runs in it. */
    static void endWithStdin() {
        Thread thread = new Thread(() -> {
            awaitEnd();
            Runtime.getRuntime().halt(0);
        });
        thread.setDaemon(true);
        thread.start();
    }
}

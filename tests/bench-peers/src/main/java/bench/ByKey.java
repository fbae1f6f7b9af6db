package bench;

import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.locks.LockSupport;

/**
 * BOOTSTRAP TOPIC RECORDS MICROSECONDS CONCURRENCY: Parallel Consumer in the order of each key, waiting this long for each
 * record. Waits with parkNanos, which is more exact than sleep.
 */
public final class ByKey {
    private ByKey() {}

    public static void main(String[] args) {
        Progress progress = new Progress(Long.parseLong(args[2]));
        long nanos = Long.parseLong(args[3]) * 1000;
        ParallelStreamProcessor<byte[], byte[]> processor = ParallelStreamProcessor.createEosStreamProcessor(
                ParallelConsumerOptions.<byte[], byte[]>builder()
                        .ordering(ProcessingOrder.KEY)
                        .maxConcurrency(Integer.parseInt(args[4]))
                        .commitInterval(Duration.ofSeconds(1))
                        .commitMode(CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS)
                        .consumer(Clients.consumer(args[0]))
                        .build());
        processor.subscribe(List.of(args[1]));
        processor.poll(context -> {
            progress.start();
            long end = System.nanoTime() + nanos;
            for (long left = nanos; left > 0; left = end - System.nanoTime()) {
                LockSupport.parkNanos(left);
            }
            progress.finished(1);
        });
        Progress.awaitEnd();
        Runtime.getRuntime().halt(0);
    }
}

package bench;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.List;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;

/**
 * BOOTSTRAP TOPIC RECORDS: a loop as written by hand. One thread polls, parses with Jackson, adds a field, drops one,
 * serializes, and commits once a second.
 */
public final class JsonLoop {
    private static final long COMMIT_NANOS = 1_000_000_000L;

    private JsonLoop() {}

    public static void main(String[] args) throws Exception {
        Progress progress = new Progress(Long.parseLong(args[2]));
        ObjectMapper mapper = new ObjectMapper();
        long bytes = 0;
        long committed = System.nanoTime();
        try (KafkaConsumer<byte[], byte[]> consumer = Clients.consumer(args[0])) {
            consumer.subscribe(List.of(args[1]));
            while (!progress.isComplete()) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
                if (records.isEmpty()) {
                    continue;
                }
                progress.start();
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    ObjectNode order = (ObjectNode) mapper.readTree(record.value());
                    order.put("handled_by", "bench");
                    order.remove("status");
                    bytes += mapper.writeValueAsBytes(order).length;
                }
                progress.finished(records.count());
                if (System.nanoTime() - committed > COMMIT_NANOS) {
                    consumer.commitAsync();
                    committed = System.nanoTime();
                }
            }
            Progress.awaitEnd();
        }
        // Used, so that the compiler cannot remove the work.
        Runtime.getRuntime().halt(bytes > 0 ? 0 : 1);
    }
}

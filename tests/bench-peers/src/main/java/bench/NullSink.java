package bench;

import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.sink.SinkConnector;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.sink.SinkTask;

/** A Kafka Connect sink that drops its records, to measure Connect itself. "expect" is the expected number of records. */
public final class NullSink extends SinkConnector {
    private Map<String, String> settings;

    @Override
    public String version() {
        return "1";
    }

    @Override
    public void start(Map<String, String> settings) {
        this.settings = settings;
    }

    @Override
    public void stop() {}

    @Override
    public ConfigDef config() {
        return new ConfigDef();
    }

    @Override
    public Class<? extends Task> taskClass() {
        return NullTask.class;
    }

    @Override
    public List<Map<String, String>> taskConfigs(int tasks) {
        return Collections.nCopies(tasks, settings);
    }

    /** Counts records. */
    public static final class NullTask extends SinkTask {
        private static Progress progress;

        private static synchronized Progress progress(Map<String, String> settings) {
            // All tasks together.
            if (progress == null) {
                progress = new Progress(Long.parseLong(settings.get("expect")));
                Progress.endWithStdin();
            }
            return progress;
        }

        private Progress shared;

        @Override
        public String version() {
            return "1";
        }

        @Override
        public void start(Map<String, String> settings) {
            shared = progress(settings);
        }

        @Override
        public void put(Collection<SinkRecord> records) {
            if (!records.isEmpty()) {
                shared.start();
                shared.finished(records.size());
            }
        }

        @Override
        public void stop() {}
    }
}

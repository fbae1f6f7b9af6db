//! Writes librdkafka's log lines to the worker's log, under the target `librdkafka`.

use rdkafka::config::RDKafkaLogLevel;

/// The client that logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogSource {
    /// The consumer.
    Consumer,
    /// A producer. Its lines begin with `producer: `. Its errors are logged as warnings, because the worker
    /// sends again.
    Producer,
}

/// Logs one line of librdkafka at the matching level.
pub(crate) fn log(source: LogSource, level: RDKafkaLogLevel, facility: &str, message: &str) {
    let prefix = match source {
        LogSource::Consumer => "",
        LogSource::Producer => "producer: ",
    };
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
            if source == LogSource::Consumer =>
        {
            tracing::error!(target: "librdkafka", facility, "{prefix}{message}");
        }
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{prefix}{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{prefix}{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{prefix}{message}"),
    }
}

/// The level of a log event, which is one of syslog.
pub(crate) fn level(number: i32) -> RDKafkaLogLevel {
    match number {
        ..=0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        7.. => RDKafkaLogLevel::Debug,
    }
}

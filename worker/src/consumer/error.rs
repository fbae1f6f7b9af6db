//! Why the poll loop cannot continue.

use std::time::Duration;

use rdkafka::error::KafkaError;

use crate::{exit, record::TopicPartition};

/// Why the poll loop ended without a clean stop.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The client could not be created from its properties.
    #[error(
        "cannot create the Kafka consumer: {0}; check spec.kafka, above all clientConfig and the TLS material"
    )]
    Client(#[source] KafkaError),
    /// librdkafka reports that this client cannot continue.
    #[error("the Kafka consumer cannot continue: {0}")]
    Fatal(#[source] KafkaError),
    /// A record arrived outside of its partition's queue.
    #[error("a record arrived outside of its partition's queue; restarting to read it again")]
    StrayRecord,
    /// The client ignores the leaders of a topic that was created again, because their epoch is lower than
    /// that of the deleted topic.
    #[error(
        "topic {0:?} was deleted and created again, and the Kafka client cannot follow it, because the epoch of \
         its leaders has gone back; restarting to read it from its start"
    )]
    TopicRecreated(String),
    /// The task of a partition panicked.
    #[error("the task of partition {0} panicked (see the log); restarting to read its records again")]
    TaskDied(TopicPartition),
    /// The task that commits transactions panicked.
    #[error("the task that commits transactions panicked (see the log); restarting")]
    TransactorDied,
    /// Partitions still had work in flight at the end of the drain budget.
    #[error(
        "{partitions} partitions were not finished within {} s; their last records will be processed again",
        budget.as_secs()
    )]
    DrainTimeout {
        /// How many partitions.
        partitions: usize,
        /// The budget.
        budget: Duration,
    },
    /// A bounded run was stopped before its end.
    #[error(
        "stopped before the end of the run: everything processed so far is committed, and a worker that starts \
         again continues from there"
    )]
    Unfinished,
    /// The plan of a bounded run does not fit any more.
    #[error("{0}; nothing more is committed. Plan the run again: repeating this one cannot help")]
    PlanOutdated(String),
    /// Abandoned transforms occupy CPU cores.
    #[error(
        "{threads} transform calls have not returned within {} s each, and only a restart ends them; \
         restarting. The log names their records; fix the transform, or raise \
         errorHandling.transformTimeoutSeconds if it is only slow",
        limit.as_secs()
    )]
    TransformsStuck {
        /// How many threads.
        threads: usize,
        /// The limit for one record.
        limit: Duration,
    },
}

impl PollError {
    /// The exit code of the process for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            PollError::Client(_) => exit::CONFIG,
            PollError::Fatal(_)
            | PollError::StrayRecord
            | PollError::TopicRecreated(_)
            | PollError::TaskDied(_) => exit::KAFKA_FATAL,
            PollError::DrainTimeout { .. } | PollError::TransformsStuck { .. } => exit::STUCK,
            PollError::Unfinished => exit::UNFINISHED,
            PollError::PlanOutdated(_) => exit::PLAN_OUTDATED,
            PollError::TransactorDied => exit::PANIC,
        }
    }
}

//! Translates rdkafka's callbacks into events. The callbacks run inside `poll` on the poll thread and only
//! record what happened. The poll loop decides, and calls assign and unassign when it is ready. librdkafka
//! waits for that call, so a revoke can drain as long as it needs without blocking the poll thread.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    topic_partition_list::TopicPartitionList,
    types::RDKafkaRespErr,
};

use super::{
    log::{LogSource, log},
    out_of_range::OutOfRange,
    topic_ids::TopicIds,
};
use crate::sync;

/// A change of the assignment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RebalanceEvent {
    /// Kafka assigns these partitions. They are ours once we call assign.
    Assign(Vec<(String, i32)>),
    /// Kafka revokes these partitions. They are gone once we call unassign. `lost`: another member may own
    /// them already, so do not commit.
    Revoke {
        partitions: Vec<(String, i32)>,
        lost: bool,
    },
}

/// Collects events for the poll loop.
#[derive(Default)]
pub(crate) struct ConsumerCallbacks {
    events: Mutex<VecDeque<RebalanceEvent>>,
    closing: AtomicBool,
    /// The ids of the topics that the consumer reads.
    pub topic_ids: TopicIds,
    /// The partitions whose position was out of range.
    pub out_of_range: OutOfRange,
}

impl ConsumerCallbacks {
    pub fn next_event(&self) -> Option<RebalanceEvent> {
        sync::lock(&self.events).pop_front()
    }

    /// From here on, revokes are answered immediately: everything is drained and committed, the consumer is
    /// about to close, and the loop no longer reads events.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }
}

impl ClientContext for ConsumerCallbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(level, RDKafkaLogLevel::Debug) {
            // Needed for the topic ids only, so the log shows these lines only at the level trace.
            self.topic_ids.read(message);
            tracing::trace!(target: "librdkafka", facility, "{message}");
        } else {
            self.out_of_range.read(message);
            log(LogSource::Consumer, level, facility, message);
        }
    }

    fn error(&self, _: KafkaError, _: &str) {
        // `poll` returns the same error, and the loop limits how often it is logged.
    }
}

impl ConsumerContext for ConsumerCallbacks {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            let done = if assign {
                consumer.incremental_assign(list)
            } else {
                consumer.incremental_unassign(list)
            };
            if let Err(error) = done {
                tracing::warn!(%error, "cannot answer a rebalance while closing");
            }
            return;
        }
        let partitions = list
            .elements()
            .iter()
            .map(|element| (element.topic().to_owned(), element.partition()))
            .collect();
        let event = if assign {
            RebalanceEvent::Assign(partitions)
        } else {
            RebalanceEvent::Revoke {
                partitions,
                lost: consumer.assignment_lost(),
            }
        };
        sync::lock(&self.events).push_back(event);
    }
}

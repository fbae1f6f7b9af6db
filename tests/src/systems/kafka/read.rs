//! Reads topics: everything that is there now, or new records while a test runs. Reads as `read_committed`
//! consumers do, unless the [`Kafka`] is configured otherwise.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::Consumer,
    error::KafkaError,
    message::{BorrowedMessage, Headers},
    types::RDKafkaErrorCode,
};

use super::{Kafka, REQUEST, Record};

/// Pause between two checks of the stop flag.
const TICK: Duration = Duration::from_millis(100);

/// Error codes of a client while its broker is unavailable or has just become available again.
const UNAVAILABLE: [RDKafkaErrorCode; 4] = [
    RDKafkaErrorCode::AllBrokersDown,
    RDKafkaErrorCode::BrokerTransportFailure,
    RDKafkaErrorCode::Resolve,
    RDKafkaErrorCode::OperationTimedOut,
];

impl Kafka {
    /// Reads every record that is in a topic now, partition after partition in the order of offsets.
    pub async fn read_all(&self, topic: &str) -> Result<Vec<Record>> {
        let mut records = self.fold(topic, Vec::new(), Vec::push).await?;
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    }

    /// Passes every record that is in a topic now to `take`, in the order of offsets within each partition,
    /// so that a topic does not have to fit into memory.
    pub async fn fold<T: Send + 'static>(
        &self,
        topic: &str,
        mut into: T,
        mut take: impl FnMut(&mut T, Record) + Send + 'static,
    ) -> Result<T> {
        let topic = topic.to_string();
        let partitions = self.partitions(&topic).await?;
        let this = self.clone().with("enable.partition.eof", "true");
        this.blocking(move |consumer| {
            consumer.assign(&from_the_beginning(&topic, partitions)?)?;
            let mut ended = 0;
            while ended < partitions {
                match consumer.poll(REQUEST) {
                    Some(Ok(message)) => take(&mut into, record(&message)),
                    Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                    Some(Err(error)) => bail!("reading {topic}: {error}"),
                    None => bail!("reading {topic}: nothing for {} s", REQUEST.as_secs()),
                }
            }
            Ok(into)
        })
        .await
    }

    /// Reads a topic from its beginning while it grows, until `stop` is set, and passes each record to
    /// `take`.
    pub async fn follow<T: Send + 'static>(
        &self,
        topic: &str,
        mut into: T,
        mut take: impl FnMut(&mut T, Record) + Send + 'static,
        stop: Arc<AtomicBool>,
    ) -> Result<T> {
        let topic = topic.to_string();
        let partitions = self.partitions(&topic).await?;
        self.blocking(move |consumer| {
            consumer.assign(&from_the_beginning(&topic, partitions)?)?;
            while !stop.load(Ordering::Relaxed) {
                match consumer.poll(TICK) {
                    Some(Ok(message)) => take(&mut into, record(&message)),
                    // The client reconnects; errors that it cannot recover from have other codes.
                    Some(Err(error))
                        if error
                            .rdkafka_error_code()
                            .is_some_and(|code| UNAVAILABLE.contains(&code)) => {}
                    Some(Err(error)) => bail!("following {topic}: {error}"),
                    None => {}
                }
            }
            Ok(into)
        })
        .await
    }
}

fn from_the_beginning(topic: &str, partitions: usize) -> Result<TopicPartitionList> {
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions as i32 {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    Ok(assignment)
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: message.headers().map(headers).unwrap_or_default(),
    }
}

fn headers<H: Headers>(headers: &H) -> Vec<(String, Option<Vec<u8>>)> {
    headers
        .iter()
        .map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec)))
        .collect()
}

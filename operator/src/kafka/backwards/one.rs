//! Reads one record. In: a cluster, a topic, a partition, an offset. Out: the record, or why there is none.

use super::partition::Reading;
use super::question::{ReadProblem, Shown, Take, find, within};
use crate::kafka::cluster::Cluster;
use crate::kafka::missing::{Missing, answer_of};
use crate::kafka::topics::{self, At};

/// What is at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum One<T> {
    Found(T),
    /// Retention has removed it: this is the first offset that there is.
    Removed(i64),
    /// The committed records end before this offset.
    NotYet(i64),
    /// Compaction has removed it, or it is a marker or a record of an aborted transaction.
    NoRecord,
    Unreadable(String),
}

/// Reads the record. `take` must keep it.
pub(in crate::kafka) async fn one<T: Send + 'static>(
    cluster: &Cluster,
    topic: &str,
    partition: i32,
    offset: i64,
    take: Take<T>,
) -> Result<One<T>, ReadProblem> {
    within(read(cluster, topic, partition, offset, take)).await
}

async fn read<T: Send + 'static>(
    cluster: &Cluster,
    topic: &str,
    partition: i32,
    offset: i64,
    take: Take<T>,
) -> Result<One<T>, ReadProblem> {
    let (topics, found) = find(cluster, topic).await?;
    let leader = found.leaders.get(&partition).copied();
    let leader = leader.ok_or(ReadProblem::NoPartition(found.partitions()))?;
    let name = (topic.to_string(), partition);
    let offsets = |at| topics::offsets(cluster, &topics, vec![name.clone()], at);
    let (starts, ends) = futures::join!(offsets(At::Start), offsets(At::End { read_committed: true }));
    let unknown = || Missing::Unknown("the broker has not answered".into());
    let start = answer_of(&starts, &name)?.ok_or_else(unknown)?;
    let end = answer_of(&ends, &name)?.ok_or_else(unknown)?;
    if offset < start {
        return Ok(One::Removed(start));
    }
    if offset >= end {
        return Ok(One::NotYet(end));
    }
    let mut reading = Reading::new(name, leader, offset, offset + 1, 1);
    reading.step(cluster, 1, take).await;
    if let Some(missing) = reading.failure() {
        return Err(missing.into());
    }
    let start = reading.start();
    Ok(match reading.pop().map(|entry| entry.shown) {
        Some(Shown::Record(record)) => One::Found(record),
        Some(Shown::Unreadable { why, .. }) => One::Unreadable(why),
        None if start > offset => One::Removed(start),
        None => One::NoRecord,
    })
}

//! What is asked when a topic is read backwards, and what the answers are. In: a topic. Out: plain values; the topic
//! and its leaders, or why there is no answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::kafka::cluster::Cluster;
use crate::kafka::missing::{Missing, answer_of};
use crate::kafka::model::KafkaProblem;
use crate::kafka::protocol::records::Record;
use crate::kafka::topics::{self, FoundTopic, Topics};

/// Time for everything, with brokers that hang.
const LONGEST: Duration = Duration::from_secs(12);

/// What a reader keeps of a record; None: the record is not shown. Called once for each record that is looked at.
pub type Take<T> = Arc<dyn Fn(i32, &Record<'_>) -> Option<T> + Send + Sync>;

/// Which records a page has.
#[derive(Clone, Debug)]
pub struct NewestFirst {
    pub topic: String,
    /// Only this partition.
    pub partition: Option<i32>,
    /// Records below these offsets, of these partitions; None: from the end of all partitions.
    pub below: Option<BTreeMap<i32, i64>>,
    /// Read the partitions from this one on first, so that those in front do not take the time of all others.
    pub begin: i32,
    /// Id of the topic that the offsets are of; None: unknown.
    pub topic_id: Option<String>,
    /// Records of the page.
    pub limit: usize,
    /// Look at this many records at least, if they cost little.
    pub look: usize,
}

/// What is at an offset.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown<T> {
    Record(T),
    /// Records from this offset on cannot be read.
    Unreadable {
        first: i64,
        why: String,
    },
}

/// An entry of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<T> {
    pub partition: i32,
    /// Offset of the record, or of the last one that cannot be read.
    pub offset: i64,
    /// Unix milliseconds; negative: none.
    pub timestamp: i64,
    pub shown: Shown<T>,
}

/// One page.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The newest first; of one partition, in the order of their offsets.
    pub entries: Vec<Entry<T>>,
    /// Where the next page begins; empty: there are no older records.
    pub below: BTreeMap<i32, i64>,
    /// The partition behind the one that was read last.
    pub begin: i32,
    /// None: the brokers have no topic ids.
    pub topic_id: Option<String>,
    /// The budget has ended before the page was full.
    pub partial: bool,
    /// Number of records that were looked at.
    pub looked: usize,
    /// Partitions that cannot be read now, and why.
    pub problems: BTreeMap<i32, String>,
}

/// Why there is no page, or no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadProblem {
    Kafka(KafkaProblem),
    /// The topic does not exist.
    NoTopic,
    /// The topic has only this many partitions.
    NoPartition(i32),
    /// The offsets are of a topic with this name that was deleted.
    OtherTopic,
    /// The page begins behind the end of this partition: the topic was created again, or has lost records.
    BehindEnd(i32),
}

impl From<KafkaProblem> for ReadProblem {
    fn from(problem: KafkaProblem) -> Self {
        Self::Kafka(problem)
    }
}

impl From<Missing> for ReadProblem {
    fn from(missing: Missing) -> Self {
        Self::Kafka(missing.problem())
    }
}

/// The answer, or that the brokers do not respond.
pub(super) async fn within<T>(
    answer: impl Future<Output = Result<T, ReadProblem>>,
) -> Result<T, ReadProblem> {
    tokio::time::timeout(LONGEST, answer).await.unwrap_or_else(|_| {
        let seconds = LONGEST.as_secs();
        Err(KafkaProblem::Unreachable(format!("no answer within {seconds} s")).into())
    })
}

/// The topic, or that it does not exist.
pub(super) async fn find(cluster: &Cluster, name: &str) -> Result<(Topics, FoundTopic), ReadProblem> {
    let topics = topics::topics(cluster, &[name.to_string()].into()).await?;
    let found = answer_of(&topics, name)?.ok_or(ReadProblem::NoTopic)?;
    Ok((topics, found))
}

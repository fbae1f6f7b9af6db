//! Reads a topic from its newest records backwards, without a consumer group. In: a cluster, a topic, where to
//! continue, a limit. Out: one page, the newest record first, and where the next one begins. Kafka reads only
//! forwards, so each partition is read in steps that end where the step before began. Every page has a budget of
//! time and bytes; what it did not reach is said, never left out silently. Shows committed records only.

mod chunk;
mod one;
mod partition;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::cluster::Cluster;
use super::missing::{Missing, answer_of};
use super::model::{KafkaProblem, Partition};
use super::topics::{self, At, FoundTopic, Topics};
use partition::Reading;

pub use self::one::One;
pub use super::protocol::records::Record;

pub(super) use self::one::one;

/// Time for the reads of a page; a read that has begun may take longer.
const BUDGET_TIME: Duration = Duration::from_secs(2);
/// Bytes that a page reads, counted as the larger of compressed and decompressed.
const BUDGET_BYTES: usize = 16 << 20;
/// Partitions that are read at the same time. A connection carries 8 requests.
const AT_ONCE: usize = 8;
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
    /// The page begins at an offset that this partition never had: the topic was created again.
    OtherTopic(i32),
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

/// Reads one page.
pub(super) async fn newest_first<T: Send + 'static>(
    cluster: &Cluster,
    query: &NewestFirst,
    take: Take<T>,
) -> Result<Page<T>, ReadProblem> {
    within(read(cluster, query, take)).await
}

/// The answer, or that the brokers do not respond.
async fn within<T>(answer: impl Future<Output = Result<T, ReadProblem>>) -> Result<T, ReadProblem> {
    tokio::time::timeout(LONGEST, answer).await.unwrap_or_else(|_| {
        let seconds = LONGEST.as_secs();
        Err(KafkaProblem::Unreachable(format!("no answer within {seconds} s")).into())
    })
}

async fn read<T: Send + 'static>(
    cluster: &Cluster,
    query: &NewestFirst,
    take: Take<T>,
) -> Result<Page<T>, ReadProblem> {
    let mut readings = readings(cluster, query).await?;
    let mut page = Page {
        entries: Vec::new(),
        below: BTreeMap::new(),
        partial: false,
        looked: 0,
        problems: BTreeMap::new(),
    };
    let (started, mut bytes) = (Instant::now(), 0_usize);
    loop {
        let more_looks =
            page.looked < query.look && bytes < BUDGET_BYTES / 4 && started.elapsed() < BUDGET_TIME / 2;
        let wanted: Vec<&mut Reading<T>> = readings
            .iter_mut()
            .filter(|it| it.may_read() && (more_looks || it.is_empty()))
            .collect();
        if wanted.is_empty() {
            if emit(&mut readings, &mut page, query.limit, false) {
                break;
            }
            continue;
        }
        if bytes >= BUDGET_BYTES || started.elapsed() >= BUDGET_TIME {
            page.partial = true;
            break;
        }
        let mut wanted = wanted.into_iter();
        let mut reads = FuturesUnordered::new();
        let step = |reading, take: &Take<T>| Reading::step(reading, cluster, query.limit, Arc::clone(take));
        for reading in wanted.by_ref().take(AT_ONCE) {
            reads.push(step(reading, &take));
        }
        while let Some(cost) = reads.next().await {
            bytes = bytes.saturating_add(cost.bytes);
            page.looked += cost.looked;
            if bytes < BUDGET_BYTES
                && started.elapsed() < BUDGET_TIME
                && let Some(reading) = wanted.next()
            {
                reads.push(step(reading, &take));
            }
        }
    }
    if page.partial {
        // What is known is shown; without the others, the order between partitions is the best that there is.
        emit(&mut readings, &mut page, query.limit, true);
    }
    page.below = readings.iter().filter_map(Reading::resume).collect();
    page.problems = readings.iter().filter_map(Reading::problem).collect();
    let failed = readings.iter_mut().filter_map(Reading::failure);
    let failed: Vec<Missing> = failed.collect();
    if !readings.is_empty() && failed.len() == readings.len() {
        // None could be read: why is worth more than an empty page.
        if let Some(first) = failed.into_iter().next() {
            return Err(first.into());
        }
    }
    page.partial |= !page.problems.is_empty();
    Ok(page)
}

/// Moves the newest entries to the page. True: the page is full, or nothing is left. Without `anyway`, stops at a
/// partition whose next entry is not known.
fn emit<T>(readings: &mut [Reading<T>], page: &mut Page<T>, limit: usize, anyway: bool) -> bool {
    while page.entries.len() < limit {
        if !anyway && readings.iter().any(|it| it.is_empty() && it.may_read()) {
            return false;
        }
        // The first of several that are equal, so that the order does not depend on chance.
        let newest = readings.iter_mut().rev().filter(|it| !it.is_empty());
        let Some(newest) = newest.max_by_key(|it| it.timestamp()) else {
            return true;
        };
        page.entries.extend(newest.pop());
    }
    true
}

/// The partitions that are read, each with its bounds.
async fn readings<T>(cluster: &Cluster, query: &NewestFirst) -> Result<Vec<Reading<T>>, ReadProblem> {
    let (topics, topic) = find(cluster, &query.topic).await?;
    if let Some(partition) = query.partition
        && !topic.leaders.contains_key(&partition)
    {
        return Err(ReadProblem::NoPartition(topic.partitions()));
    }
    let is_wanted = |index: &i32| {
        let asked = query.partition.is_none_or(|partition| partition == *index);
        asked && query.below.as_ref().is_none_or(|below| below.contains_key(index))
    };
    let wanted: Vec<Partition> = (topic.leaders.keys().copied())
        .filter(is_wanted)
        .map(|index| (query.topic.clone(), index))
        .collect();
    let offsets = |at| topics::offsets(cluster, &topics, wanted.clone(), at);
    let (starts, ends) = futures::join!(offsets(At::Start), offsets(At::End { read_committed: true }));
    let first_step = (query.look / wanted.len().max(1)).clamp(16, 512);
    let mut readings = Vec::with_capacity(wanted.len());
    for partition in wanted {
        let index = partition.1;
        let leader = topic.leaders.get(&index).copied().unwrap_or(-1);
        let bounds = answer_of(&starts, &partition).and_then(|start| {
            let end = answer_of(&ends, &partition)?;
            let unknown = || Missing::Unknown("the broker has not answered".into());
            Ok((start.ok_or_else(unknown)?, end.ok_or_else(unknown)?))
        });
        readings.push(match bounds {
            Err(missing) => Reading::failed(partition, missing),
            Ok((start, end)) => {
                let below = query.below.as_ref().and_then(|below| below.get(&index));
                if below.is_some_and(|below| *below > end) {
                    return Err(ReadProblem::OtherTopic(index));
                }
                Reading::new(
                    partition,
                    leader,
                    start,
                    below.copied().unwrap_or(end),
                    first_step,
                )
            }
        });
    }
    Ok(readings)
}

async fn find(cluster: &Cluster, name: &str) -> Result<(Topics, FoundTopic), ReadProblem> {
    let topics = topics::topics(cluster, &[name.to_string()].into()).await?;
    let found = answer_of(&topics, name)?.ok_or(ReadProblem::NoTopic)?;
    Ok((topics, found))
}

#[cfg(test)]
mod tests;

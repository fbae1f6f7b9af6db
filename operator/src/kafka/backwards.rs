//! Reads a topic from its newest records backwards, without a consumer group. In: a cluster, a topic, where to
//! continue, a limit. Out: one page, the newest record first, and where the next one begins. Kafka reads only
//! forwards, so each partition is read in steps that end where the step before began. Every page has a budget of
//! time and bytes; what it did not reach is said, never left out silently. Shows committed records only.

mod chunk;
mod one;
mod partition;
mod question;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::cluster::Cluster;
use super::missing::{Missing, answer_of};
use super::model::Partition;
use super::topics::{self, At};
use partition::Reading;
use question::{find, within};

pub use self::one::One;
pub use self::question::{Entry, NewestFirst, Page, ReadProblem, Shown, Take};
pub use super::protocol::records::Record;

pub(super) use self::one::one;

/// Time for the reads of a page; a read that has begun may take longer.
const BUDGET_TIME: Duration = Duration::from_secs(2);
/// Bytes that a page reads, counted as the larger of compressed and decompressed.
const BUDGET_BYTES: usize = 16 << 20;
/// Partitions that are read at the same time. A connection carries 8 requests. After an answer that is larger than
/// it was asked to be, a page reads one partition after the other.
const AT_ONCE: usize = 8;
/// Where a partition begins whose end could not be read.
const FROM_END: i64 = i64::MAX;

/// Reads one page.
pub(super) async fn newest_first<T: Send + 'static>(
    cluster: &Cluster,
    query: &NewestFirst,
    take: Take<T>,
) -> Result<Page<T>, ReadProblem> {
    within(read(cluster, query, take)).await
}

async fn read<T: Send + 'static>(
    cluster: &Cluster,
    query: &NewestFirst,
    take: Take<T>,
) -> Result<Page<T>, ReadProblem> {
    let (topic_id, mut readings) = readings(cluster, query).await?;
    let mut page = Page {
        entries: Vec::new(),
        below: BTreeMap::new(),
        begin: query.begin,
        topic_id,
        partial: false,
        looked: 0,
        problems: BTreeMap::new(),
    };
    let (started, mut bytes) = (Instant::now(), 0_usize);
    let (mut at_once, mut throttled) = (AT_ONCE, false);
    loop {
        let more_looks =
            page.looked < query.look && bytes < BUDGET_BYTES / 4 && started.elapsed() < BUDGET_TIME / 2;
        let mut wanted: Vec<&mut Reading<T>> = readings
            .iter_mut()
            .filter(|it| it.must_read() || more_looks && it.may_read())
            .collect();
        if wanted.is_empty() {
            if emit(&mut readings, &mut page, query.limit, false) {
                break;
            }
            continue;
        }
        if throttled || bytes >= BUDGET_BYTES || started.elapsed() >= BUDGET_TIME {
            page.partial = true;
            break;
        }
        let begin = page.begin;
        wanted.sort_by_key(|reading| reading.index() < begin);
        let mut wanted = wanted.into_iter();
        let mut reads = FuturesUnordered::new();
        let step = |reading, take: &Take<T>| Reading::step(reading, cluster, query.limit, Arc::clone(take));
        loop {
            while reads.len() < at_once
                && !throttled
                && bytes < BUDGET_BYTES
                && started.elapsed() < BUDGET_TIME
                && let Some(reading) = wanted.next()
            {
                page.begin = reading.index().saturating_add(1);
                reads.push(step(reading, &take));
            }
            let Some(cost) = reads.next().await else { break };
            bytes = bytes.saturating_add(cost.bytes);
            page.looked += cost.looked;
            throttled |= cost.throttled;
            if cost.large {
                at_once = 1;
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
    if page.entries.is_empty() && !readings.is_empty() && failed.len() == readings.len() {
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
        if !anyway && readings.iter().any(Reading::must_read) {
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

/// The id of the topic, and the partitions that are read, each with its bounds.
async fn readings<T>(
    cluster: &Cluster,
    query: &NewestFirst,
) -> Result<(Option<String>, Vec<Reading<T>>), ReadProblem> {
    let (topics, topic) = find(cluster, &query.topic).await?;
    if let (Some(asked), Some(found)) = (&query.topic_id, &topic.id)
        && asked != found
    {
        return Err(ReadProblem::OtherTopic);
    }
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
    let first_step = (query.look / wanted.len().max(1)).clamp(64, 512);
    let mut readings = Vec::with_capacity(wanted.len());
    for partition in wanted {
        let index = partition.1;
        let leader = topic.leaders.get(&index).copied().unwrap_or(-1);
        let bounds = answer_of(&starts, &partition).and_then(|start| {
            let end = answer_of(&ends, &partition)?;
            let unknown = || Missing::Unknown("the broker has not answered".into());
            Ok((start.ok_or_else(unknown)?, end.ok_or_else(unknown)?))
        });
        let below = query.below.as_ref().and_then(|below| below.get(&index)).copied();
        readings.push(match bounds {
            Err(missing) => Reading::failed(partition, below.unwrap_or(FROM_END), missing),
            Ok((start, end)) => {
                let below = below.filter(|below| *below != FROM_END);
                if below.is_some_and(|below| below > end) {
                    return Err(ReadProblem::BehindEnd(index));
                }
                Reading::new(partition, leader, start, below.unwrap_or(end), first_step)
            }
        });
    }
    Ok((topic.id, readings))
}

#[cfg(test)]
mod tests;

//! One partition that is read backwards. In: its bounds, answers of its leader. Out: entries, the newest first, and
//! where to continue. Finds a new leader by itself a few times; then it says why it cannot be read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::chunk::{self, Reach, Wanted};
use super::question::{Entry, Shown, Take};
use crate::kafka::cluster::{ANSWER, Cluster};
use crate::kafka::missing::{Missing, answer_of};
use crate::kafka::model::Partition;
use crate::kafka::protocol::error_code::ErrorCode;
use crate::kafka::protocol::fetch::{FetchRecords, FetchedRecords};
use crate::kafka::topics;

/// Bytes of one request: a full batch of any producer with default settings.
const CHUNK: i32 = 1 << 20;
/// The same when a batch is larger, and a broker cuts it.
const LARGE_CHUNK: i32 = 32 << 20;
/// Offsets of one step.
const LONGEST_STEP: i64 = 10_000;
/// Failures of one step that may pass, before the partition counts as unreadable for this page.
const ATTEMPTS: u32 = 3;
const WAIT: Duration = Duration::from_millis(100);
/// Short answers of one step.
const PARTS: usize = 8;
/// Requests of one step: enough to make it smaller from the longest one to one offset.
const REQUESTS: u32 = 60;

/// Steps of all pages of this process at the same time: a broker returns a first batch whole, so an answer may have
/// 64 MiB, and its size is known only when it is here.
static FETCHING: Semaphore = Semaphore::const_new(4);

/// What a step has cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub bytes: usize,
    pub looked: usize,
    /// An answer was larger than it was asked to be.
    pub large: bool,
    /// The quota of the Kafka user is used up.
    pub throttled: bool,
}

/// The reading of a partition.
pub(super) struct Reading<T> {
    partition: Partition,
    leader: i32,
    /// First offset that there is.
    start: i64,
    /// Everything from here on has been read.
    read_from: i64,
    step: i64,
    /// The newest first.
    entries: VecDeque<Entry<T>>,
    /// First offset of the entry that was taken last.
    taken: Option<i64>,
    /// Entries that did not fit into the page were dropped.
    dropped: bool,
    failed: Option<Missing>,
}

impl<T: Send + 'static> Reading<T> {
    /// Reads the next older records. Never fails: a failure is one of the partition.
    pub async fn step(&mut self, cluster: &Cluster, limit: usize, take: Take<T>) -> Cost {
        let mut cost = Cost::default();
        // Kept until all answers of the step are decoded. The semaphore is never closed.
        let _slot = FETCHING.acquire().await.ok();
        if let Err(missing) = self.try_step(cluster, limit, &take, &mut cost).await {
            self.failed = Some(missing);
        }
        cost
    }

    async fn try_step(
        &mut self,
        cluster: &Cluster,
        limit: usize,
        take: &Take<T>,
        cost: &mut Cost,
    ) -> Result<(), Missing> {
        let end = self.read_from;
        let mut max_bytes = CHUNK;
        let mut from = self.start.max(end - self.step);
        let mut parts: Vec<(i64, FetchedRecords)> = Vec::new();
        for _ in 0..REQUESTS {
            let mut at = parts.last().map_or(from, |(_, part)| next_offset(part, from));
            let answer = self.fetch(cluster, &mut at, max_bytes, cost).await?;
            if self.read_from <= self.start {
                // Retention was faster.
                return Ok(());
            }
            let size = answer.records.len();
            cost.bytes += size;
            cost.large |= size > CHUNK as usize;
            match chunk::reach(&answer.records) {
                Reach::To(last, more) if last.saturating_add(1) < end => {
                    // An answer ends with a segment of the log, also if it is short.
                    if !more && size < CHUNK as usize / 2 && parts.len() < PARTS {
                        parts.push((at, answer));
                        continue;
                    }
                    // Too much for one step: a smaller one, so that the newest are known first. These bytes are
                    // read again later.
                    let covered = last.saturating_add(1).saturating_sub(from);
                    self.step = (covered / 2).min((end - from) / 2).max(1);
                    from = self.start.max(end - self.step);
                    parts.clear();
                    continue;
                }
                Reach::Cut if max_bytes < LARGE_CHUNK => {
                    max_bytes = LARGE_CHUNK;
                    continue;
                }
                // What is damaged is newer than what is wanted, or the batches before it can be shown.
                Reach::Damaged(Some(last)) => {
                    if last.saturating_add(1) < end {
                        self.unreadable(last.saturating_add(1), end);
                    }
                    parts.push((at, answer));
                }
                Reach::Cut | Reach::Damaged(None) => self.unreadable(at, end),
                Reach::Empty => {}
                Reach::To(..) => parts.push((at, answer)),
            }
            let wanted = Wanted {
                partition: self.partition.1,
                start: from,
                end,
                limit,
            };
            self.take_parts(parts, wanted, take, cost).await;
            self.trim(limit);
            return Ok(());
        }
        self.unreadable(from, end);
        Ok(())
    }

    /// Takes in the answers of a step, the newest one first.
    async fn take_parts(
        &mut self,
        parts: Vec<(i64, FetchedRecords)>,
        wanted: Wanted,
        take: &Take<T>,
        cost: &mut Cost,
    ) {
        let (from, end) = (wanted.start, wanted.end);
        let mut first = from;
        // Not the whole answers, which do not become smaller than CHUNK if newer records follow.
        let sizes = parts
            .iter()
            .map(|(_, part)| chunk::size_below(&part.records, end));
        let step_size: usize = sizes.sum();
        for (at, part) in parts.into_iter().rev() {
            // The first batch of the first answer may begin before the step.
            let start = if at == from { self.start } else { at };
            let size = part.records.len();
            let decoded = chunk::decode(part, Wanted { start, ..wanted }, take.clone()).await;
            cost.bytes += decoded.bytes.saturating_sub(size);
            cost.looked += decoded.looked;
            first = decoded.first.map_or(first, |found| found.min(first));
            self.dropped |= decoded.dropped;
            self.entries.extend(decoded.entries);
        }
        self.read_from = first.max(self.start);
        if step_size < CHUNK as usize / 4 {
            self.step = self.step.saturating_mul(2).min(LONGEST_STEP);
        }
    }

    /// Records from `from` on. Moves `from` and the start when retention has removed records meanwhile.
    async fn fetch(
        &mut self,
        cluster: &Cluster,
        from: &mut i64,
        max_bytes: i32,
        cost: &mut Cost,
    ) -> Result<FetchedRecords, Missing> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let request = FetchRecords {
                topic: self.partition.0.clone(),
                partition: self.partition.1,
                offset: *from,
                max_bytes,
            };
            let what = format!("topic \"{}\" partition {}", self.partition.0, self.partition.1);
            let started = Instant::now();
            let missing = match cluster.node(self.leader, &request, ANSWER).await {
                Ok(answer) if answer.error.is_ok() && !lags(&answer, self.read_from) => return Ok(answer),
                Ok(answer) if answer.error.is_ok() => {
                    Missing::Unknown(format!("{what}: its leader does not have all records yet"))
                }
                // The broker does not read the next request before the time is over.
                Ok(answer) if answer.error == ErrorCode::THROTTLING_QUOTA_EXCEEDED => {
                    cost.throttled = true;
                    return Err(throttled(answer.throttle));
                }
                Ok(answer) if answer.error == ErrorCode::OFFSET_OUT_OF_RANGE => {
                    self.new_start(cluster, answer.log_start).await?;
                    *from = self.start.max(*from);
                    if self.read_from <= self.start {
                        return Ok(FetchedRecords {
                            error: ErrorCode::NONE,
                            ..answer
                        });
                    }
                    Missing::of_code(answer.error, &what)
                }
                Ok(answer) => Missing::of_code(answer.error, &what),
                // One that hangs would take the time of all others.
                Err(error) if started.elapsed() >= ANSWER => return Err(Missing::of_call(error)),
                Err(error) => Missing::of_call(error),
            };
            if attempt >= ATTEMPTS || matches!(missing, Missing::Refused(_)) {
                return Err(missing);
            }
            tokio::time::sleep(WAIT).await;
            self.find_leader(cluster).await?;
        }
    }

    async fn new_start(&mut self, cluster: &Cluster, log_start: i64) -> Result<(), Missing> {
        let start = match log_start {
            0.. => log_start,
            _ => {
                let topics = topics::Topics::from([(
                    self.partition.0.clone(),
                    Ok(Some(topics::FoundTopic {
                        id: None,
                        leaders: [(self.partition.1, self.leader)].into(),
                    })),
                )]);
                let wanted = vec![self.partition.clone()];
                let starts = topics::offsets(cluster, &topics, wanted, topics::At::Start).await;
                answer_of(&starts, &self.partition)?.unwrap_or(self.start)
            }
        };
        self.start = self.start.max(start);
        Ok(())
    }

    async fn find_leader(&mut self, cluster: &Cluster) -> Result<(), Missing> {
        let topics = topics::topics(cluster, &[self.partition.0.clone()].into()).await;
        let topics = topics.map_err(Missing::Refused)?;
        if let Some(topic) = answer_of(&topics, &self.partition.0)? {
            self.leader = topic.leaders.get(&self.partition.1).copied().unwrap_or(-1);
        }
        Ok(())
    }
}

impl<T> Reading<T> {
    /// Reads below `end`.
    pub fn new(partition: Partition, leader: i32, start: i64, end: i64, step: usize) -> Self {
        Self {
            partition,
            leader,
            start,
            read_from: end,
            step: i64::try_from(step).unwrap_or(LONGEST_STEP).max(1),
            entries: VecDeque::new(),
            taken: None,
            dropped: false,
            failed: None,
        }
    }

    /// A partition that cannot be read. The next page tries it again, below `end`.
    pub fn failed(partition: Partition, end: i64, missing: Missing) -> Self {
        Self {
            failed: Some(missing),
            ..Self::new(partition, -1, 0, end, 1)
        }
    }

    /// Of the partition.
    pub fn index(&self) -> i32 {
        self.partition.1
    }

    /// First offset that there is.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// No entry is known that was not taken.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// There are older records.
    pub fn may_read(&self) -> bool {
        self.failed.is_none() && self.read_from > self.start
    }

    /// The next entry is not known, and older records may have one.
    pub fn must_read(&self) -> bool {
        self.is_empty() && !self.dropped && self.may_read()
    }

    /// Of the next entry. One without a timestamp counts as the newest: those behind it may be new.
    pub fn timestamp(&self) -> i64 {
        match self.entries.front() {
            None => i64::MIN,
            Some(entry) if entry.timestamp < 0 => i64::MAX,
            Some(entry) => entry.timestamp,
        }
    }

    pub fn pop(&mut self) -> Option<Entry<T>> {
        let entry = self.entries.pop_front()?;
        self.taken = Some(match entry.shown {
            Shown::Record(_) => entry.offset,
            Shown::Unreadable { first, .. } => first,
        });
        Some(entry)
    }

    /// Where the next page begins; None: nothing is left, or it is not known.
    pub fn resume(&self) -> Option<(i32, i64)> {
        let below = match (self.entries.front(), self.taken) {
            (Some(next), _) => next.offset.saturating_add(1),
            (None, Some(taken)) if self.dropped => taken,
            (None, _) => self.read_from,
        };
        // A partition that failed is tried again by the next page.
        (below > self.start).then_some((self.partition.1, below))
    }

    /// Why it cannot be read.
    pub fn problem(&self) -> Option<(i32, String)> {
        Some((self.partition.1, self.failed.as_ref()?.message()))
    }

    pub fn failure(&mut self) -> Option<Missing> {
        self.failed.take()
    }

    /// A page has no use for more entries.
    fn trim(&mut self, limit: usize) {
        self.dropped |= self.entries.len() > limit;
        self.entries.truncate(limit);
    }

    fn unreadable(&mut self, first: i64, end: i64) {
        self.entries.push_back(Entry {
            partition: self.partition.1,
            offset: end - 1,
            timestamp: -1,
            shown: Shown::Unreadable {
                first,
                why: "a batch is damaged or too large: where the next one begins is unknown".into(),
            },
        });
        self.read_from = first;
    }
}

/// A new leader may know for some time only a part of the records that are committed below `end`. Then an empty
/// answer does not mean that there are none.
pub(super) fn lags(answer: &FetchedRecords, end: i64) -> bool {
    answer.records.is_empty() && (0..end).contains(&answer.last_stable)
}

/// Why nothing is read; the time is in milliseconds.
pub(super) fn throttled(time: i32) -> Missing {
    let seconds = time.max(1).saturating_add(999) / 1000;
    Missing::Unknown(format!(
        "the quota of the Kafka user is used up; try again in {seconds} s"
    ))
}

/// The offset behind the batches of an answer.
fn next_offset(answer: &FetchedRecords, otherwise: i64) -> i64 {
    match chunk::reach(&answer.records) {
        Reach::To(last, _) => last.saturating_add(1),
        _ => otherwise,
    }
}

//! Dead letters for the API. In: a group, what is asked for. Out: a page of its dead letter topic, the newest
//! first, or one record, or a problem. Checks no rights: the routes do. Only a few reads run at the same time, each
//! with a budget of time and memory. Nothing of a record is logged or kept.

pub mod cursor;
pub mod filter;
pub mod item;
pub mod json;
pub mod shape;
pub mod view;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;

use self::cursor::Cursor;
use self::filter::Filter;
use self::item::DeadLetter;
use self::shape::{ErrorCount, Errors};
use self::view::WholeRecord;
use super::places::{Find, NoPlace, Place};
use super::problem::Problem;
use crate::kafka::KafkaClients;
use crate::kafka::backwards::{NewestFirst, One, ReadProblem, Take};
use crate::kafka::model::{GroupKey, KafkaProblem};
use crate::sync::lock;

/// Reads at the same time, until their answers are sent. What they need while they read is limited with the answers
/// of brokers.
const READS: usize = 4;
/// Time to wait for a place among them.
const WAIT: Duration = Duration::from_secs(5);
/// Records that the first page looks at, at least, so that its counts say something.
const LOOK: usize = 1000;
/// These clients refresh nothing.
const REFRESH: Duration = Duration::from_secs(3600);

/// The place of a read among those at the same time, until it is dropped.
pub type Slot = OwnedSemaphorePermit;

/// Reads dead letters.
pub struct DeadLetters {
    find: Find,
    /// Apart from those that reconcile: a page with large records must not delay them.
    kafka: KafkaClients,
    reads: Arc<Semaphore>,
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterList {
    /// The dead letter topic.
    topic: String,
    /// The newest first.
    items: Vec<DeadLetter>,
    /// Value of `cursor` for the next page, which has older records; null on the last one.
    next_cursor: Option<String>,
    /// True if the time or the bytes for one request have ended before the page was full, or a partition cannot be
    /// read: older records may be missing between these, and the next page continues.
    partial: bool,
    /// Number of records that were looked at for this page, whether they match or not.
    looked_at: usize,
    /// Number of matching records among them, by error, the most frequent first. At most 50.
    errors: Vec<ErrorCount>,
    /// Partitions that cannot be read now.
    unreadable_partitions: Vec<UnreadablePartition>,
    /// Time of what is shown.
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
}

/// A partition that cannot be read now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnreadablePartition {
    partition: i32,
    /// Why.
    why: String,
}

impl DeadLetters {
    pub fn new(find: Find) -> Self {
        Self {
            find,
            kafka: KafkaClients::new(REFRESH),
            reads: Arc::new(Semaphore::new(READS)),
        }
    }

    /// One page.
    pub async fn page(&self, key: &GroupKey, filter: Filter) -> Result<DeadLetterList, Problem> {
        let _slot = self.slot().await?;
        let place = self.place(key).await?;
        let from = filter.cursor(&place.topic)?;
        let look = if from.is_none() { LOOK } else { 0 };
        let (below, from) = match from {
            None => (None, Cursor::default()),
            Some(mut from) => (Some(std::mem::take(&mut from.below)), from),
        };
        let query = NewestFirst {
            topic: place.topic.clone(),
            partition: filter.partition,
            look,
            below,
            begin: from.begin,
            topic_id: from.topic_id,
            limit: filter.limit,
        };
        let errors = Arc::new(Mutex::new(Errors::default()));
        let counted = Arc::clone(&errors);
        let take: Take<DeadLetter> = Arc::new(move |partition, record| {
            let letter = DeadLetter::of(partition, record);
            filter.selects(&letter, record).then(|| {
                lock(&counted).count(&letter);
                letter
            })
        });
        let page = self
            .kafka
            .newest_first(&place.kafka, &place.credentials, &query, take);
        let page = page.await.map_err(|problem| unread(problem, &place.topic))?;
        let too_many = || {
            Problem::bad_request(
                "InvalidQuery",
                "the topic has too many partitions for a cursor; add the parameter partition and read one after the other",
            )
        };
        let next = Cursor {
            topic_id: page.topic_id,
            begin: page.begin,
            below: page.below,
        };
        let next_cursor = match next.below.is_empty() {
            true => None,
            false => Some(next.write(&place.topic).ok_or_else(too_many)?),
        };
        let unreadable = page.problems.into_iter();
        Ok(DeadLetterList {
            items: page.entries.into_iter().map(DeadLetter::of_entry).collect(),
            next_cursor,
            partial: page.partial,
            looked_at: page.looked,
            errors: std::mem::take(&mut *lock(&errors)).most(),
            unreadable_partitions: unreadable
                .map(|(partition, why)| UnreadablePartition { partition, why })
                .collect(),
            topic: place.topic,
            as_of: Timestamp::now(),
        })
    }

    /// One record, as `take` reads it. Whoever sends something large keeps the slot until it is sent.
    pub async fn record<T: Send + 'static>(
        &self,
        key: &GroupKey,
        (partition, offset): (i32, i64),
        take: fn(&WholeRecord<'_>) -> T,
    ) -> Result<(T, Slot), Problem> {
        let slot = self.slot().await?;
        let place = self.place(key).await?;
        let topic = place.topic.clone();
        let read: Take<T> = Arc::new(move |partition, record| {
            let whole = WholeRecord {
                topic: &topic,
                partition,
                record,
            };
            Some(take(&whole))
        });
        let (kafka, at) = (&self.kafka, (partition, offset));
        let found = kafka.record_at(&place.kafka, &place.credentials, &place.topic, at, read);
        let found = found.await.map_err(|problem| unread(problem, &place.topic))?;
        let what = format!("topic {} partition {partition} offset {offset}", place.topic);
        let no = |status, reason, why: String| Err(Problem::new(status, reason, format!("{what}: {why}")));
        match found {
            One::Found(record) => Ok((record, slot)),
            One::Removed(start) => no(
                StatusCode::GONE,
                "RecordRemoved",
                format!("retention has removed it; the partition begins at offset {start}"),
            ),
            One::NotYet(end) => no(
                StatusCode::NOT_FOUND,
                "RecordNotFound",
                format!("the partition ends before offset {end}"),
            ),
            One::NoRecord => no(
                StatusCode::NOT_FOUND,
                "RecordNotFound",
                "there is no record: compaction has removed it, or it belongs to a transaction that was aborted, or it is the marker of one".into(),
            ),
            One::Unreadable(why) => no(StatusCode::UNPROCESSABLE_ENTITY, "RecordUnreadable", why),
        }
    }

    async fn slot(&self) -> Result<Slot, Problem> {
        let busy = || {
            Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequests",
                format!("{READS} reads of dead letters run already; try again in a few seconds"),
            )
        };
        match tokio::time::timeout(WAIT, Arc::clone(&self.reads).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(busy()),
        }
    }

    async fn place(&self, key: &GroupKey) -> Result<Place, Problem> {
        let problem = |no| match no {
            NoPlace::NoGroup => Problem::no_group(key),
            NoPlace::NoTopic => Problem::new(
                StatusCode::CONFLICT,
                "NoDeadLetterTopic",
                format!(
                    "the group {}/{} has no dead letter topic, so records that fail stop their partition or are skipped; set spec.errorHandling.deadLetter.topic to keep them",
                    key.namespace, key.name
                ),
            ),
            NoPlace::Invalid(why) => Problem::new(StatusCode::CONFLICT, "GroupInvalid", why),
            NoPlace::Unknown(why) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ApiServerUnavailable", why)
            }
        };
        (self.find)(key.clone()).await.map_err(problem)
    }
}

fn unread(problem: ReadProblem, topic: &str) -> Problem {
    match problem {
        ReadProblem::NoTopic => Problem::new(
            StatusCode::NOT_FOUND,
            "DeadLetterTopicMissing",
            format!(
                "the dead letter topic {topic} does not exist; create it, or set spec.errorHandling.deadLetter.provision"
            ),
        ),
        ReadProblem::NoPartition(partitions) => Problem::new(
            StatusCode::NOT_FOUND,
            "PartitionNotFound",
            format!(
                "the dead letter topic {topic} has the partitions 0 to {}",
                partitions - 1
            ),
        ),
        ReadProblem::OtherTopic => Problem::bad_request(
            "InvalidQuery",
            format!("cursor: the topic {topic} was created again; begin without a cursor"),
        ),
        ReadProblem::BehindEnd(partition) => Problem::bad_request(
            "InvalidQuery",
            format!(
                "cursor: partition {partition} of topic {topic} ends before its offset: the topic was created again, or has lost records; begin without a cursor"
            ),
        ),
        ReadProblem::Kafka(KafkaProblem::AuthorizationFailed(why)) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "AuthorizationFailed",
            format!(
                "the brokers deny access ({why}); grant the Kafka user of the group the ACLs Describe and Read on topic {topic}: workers only write to it"
            ),
        ),
        ReadProblem::Kafka(problem) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            problem.reason(),
            problem.to_string(),
        ),
    }
}

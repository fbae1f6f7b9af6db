//! Reads topics, their leaders, and offsets by time. In: a cluster, names. Out: one answer for each name and
//! each partition; what a broker did not say is missing, never a guess. Asks each leader once, for everything
//! that it leads.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crds::spec::IsolationLevel;
use futures::future::join_all;

use super::cluster::{ANSWER, Cluster};
use super::missing::{Answers, Missing, Rounds, all_missing};
use super::model::{KafkaProblem, Partition};
use super::protocol::error_code::ErrorCode;
use super::protocol::metadata::{Metadata, TopicMetadata};
use super::protocol::offsets::{ListOffsets, by_topic};

/// Topics of one Metadata request, and partitions of one ListOffsets request: answers of some 100 kB, which
/// brokers compute in milliseconds.
const TOPICS: usize = 500;
const PARTITIONS: usize = 2000;

/// Offsets by partition.
pub(super) type Offsets = BTreeMap<Partition, i64>;

/// A topic that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundTopic {
    /// As Kafka's tools show it; None: the brokers have no topic ids.
    pub(super) id: Option<String>,
    /// The leader of each partition, by index; -1: no leader now.
    pub(super) leaders: BTreeMap<i32, i32>,
}

impl FoundTopic {
    pub(super) fn partitions(&self) -> i32 {
        i32::try_from(self.leaders.len()).unwrap_or(i32::MAX)
    }
}

/// Each topic that was asked for; None: it does not exist.
pub(super) type Topics = Answers<String, Option<FoundTopic>>;

/// Which offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Start,
    /// With read_committed the last stable offset, up to which such consumers read.
    End {
        read_committed: bool,
    },
    /// The first record at or after this time, in milliseconds.
    Time(i64),
}

impl At {
    /// The end for a consumer with this isolation level.
    pub(super) fn end(isolation: IsolationLevel) -> Self {
        Self::End {
            read_committed: isolation == IsolationLevel::ReadCommitted,
        }
    }

    fn timestamp(self) -> i64 {
        match self {
            Self::End { .. } => -1,
            Self::Start => -2,
            Self::Time(milliseconds) => milliseconds.max(0),
        }
    }
}

/// Reads the partitions of topics. A topic is never created by this. Fails if no broker answers: then nothing
/// else can be asked.
pub(super) async fn topics(cluster: &Cluster, names: &BTreeSet<String>) -> Result<Topics, KafkaProblem> {
    let mut rounds = Rounds::new(names.iter().cloned().collect());
    while let Some(names) = rounds.next().await {
        let requests: Vec<Metadata> = names
            .chunks(TOPICS)
            .map(|names| Metadata {
                topics: names.to_vec(),
            })
            .collect();
        for answer in join_all(requests.iter().map(|request| cluster.any(request))).await {
            let answer = answer?;
            cluster.learn(&answer);
            let sure = rounds.is_repeated();
            rounds.take(answer.topics.into_iter().map(|topic| read(cluster, topic, sure)));
        }
    }
    Ok(rounds.answers)
}

/// A broker that has just started, or lags behind the controller, does not know every topic: only a second
/// answer says that a topic does not exist.
fn read(
    cluster: &Cluster,
    topic: TopicMetadata,
    sure: bool,
) -> (String, Result<Option<FoundTopic>, Missing>) {
    let found = match topic.error {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION if sure => Ok(None),
        error if error.is_ok() => {
            let leaders = topic.partitions.iter().map(|found| (found.index, found.leader));
            Ok(Some(FoundTopic {
                id: topic
                    .id
                    .map(|id| cluster.newest_topic_id(&topic.name, URL_SAFE_NO_PAD.encode(id.0))),
                leaders: leaders.collect(),
            }))
        }
        error => Err(Missing::of_code(error, &format!("topic \"{}\"", topic.name))),
    };
    (topic.name, found)
}

/// Reads one offset of each partition; None: no record at or after that time. `topics` holds the leaders, as
/// far as they are known.
pub(super) async fn offsets(
    cluster: &Cluster,
    topics: &Topics,
    partitions: Vec<Partition>,
    at: At,
) -> Answers<Partition, Option<i64>> {
    let mut leaders: HashMap<Partition, i32> = HashMap::new();
    note_leaders(&mut leaders, topics);
    let mut rounds = Rounds::new(partitions);
    while let Some(partitions) = rounds.next().await {
        if rounds.is_repeated() {
            // What is asked for again may have a new leader.
            let names = partitions.iter().map(|(topic, _)| topic.clone()).collect();
            if let Ok(topics) = self::topics(cluster, &names).await {
                note_leaders(&mut leaders, &topics);
            }
        }
        let mut by_leader: BTreeMap<i32, Vec<Partition>> = BTreeMap::new();
        for partition in partitions {
            match leaders.get(&partition) {
                Some(leader) if *leader >= 0 => by_leader.entry(*leader).or_default().push(partition),
                _ => {
                    let what = format!("topic \"{}\" partition {}: no leader", partition.0, partition.1);
                    rounds.take([(partition, Err(Missing::Unknown(what)))]);
                }
            }
        }
        let chunks = by_leader.iter().flat_map(|(leader, partitions)| {
            partitions.chunks(PARTITIONS).map(move |chunk| (*leader, chunk))
        });
        let asked = chunks.map(|(leader, chunk)| ask(cluster, leader, chunk, at));
        rounds.take(join_all(asked).await.into_iter().flatten());
    }
    rounds.answers
}

fn note_leaders(leaders: &mut HashMap<Partition, i32>, topics: &Topics) {
    for (name, found) in topics {
        let Ok(Some(found)) = found else { continue };
        leaders.extend(
            found
                .leaders
                .iter()
                .map(|(index, leader)| ((name.clone(), *index), *leader)),
        );
    }
}

async fn ask(
    cluster: &Cluster,
    leader: i32,
    partitions: &[Partition],
    at: At,
) -> Vec<(Partition, Result<Option<i64>, Missing>)> {
    let request = ListOffsets {
        read_committed: at == At::End { read_committed: true },
        topics: by_topic(
            partitions
                .iter()
                .map(|(topic, index)| (topic, (*index, at.timestamp()))),
        ),
    };
    match cluster.node(leader, &request, ANSWER).await {
        Ok(topics) => topics
            .into_iter()
            .flat_map(|(topic, partitions)| {
                partitions.into_iter().map(move |answer| {
                    let what = format!("topic \"{topic}\" partition {}", answer.index);
                    let offset = if answer.error.is_ok() {
                        Ok(Some(answer.offset).filter(|offset| *offset >= 0))
                    } else {
                        Err(Missing::of_code(answer.error, &what))
                    };
                    ((topic.clone(), answer.index), offset)
                })
            })
            .collect(),
        Err(error) => all_missing(partitions.iter().cloned(), &Missing::of_call(error)),
    }
}

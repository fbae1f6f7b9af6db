//! Takes the members of workers that ended badly out of their groups, in the background: a broker that does
//! not answer must not delay the session. In: dead processes. Out: messages for users.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::group::validate::ValidatedGroup;
use crate::kafka::KafkaClients;
use crate::kafka::model::{DeadProcess, GroupKey, KafkaProblem, RemovedMember};

/// Attempts, and the wait before the next one: together longer than a coordinator needs to move, and much
/// shorter than the session timeout.
const ATTEMPTS: u32 = 5;
const WAIT: Duration = Duration::from_secs(1);

/// How long the end of a session waits for removals that are under way.
const FINISH: Duration = Duration::from_secs(3);

/// Removals that are under way.
#[derive(Default)]
pub struct Removals(JoinSet<Vec<String>>);

impl Removals {
    /// Starts to remove the members of these processes of a group.
    pub fn start(&mut self, clients: &KafkaClients, group: &ValidatedGroup, dead: Vec<DeadProcess>) {
        if !dead.is_empty() {
            self.0.spawn(remove(clients.clone(), group.clone(), dead));
        }
    }

    /// Messages of the removals that are done.
    pub fn done(&mut self) -> Vec<String> {
        let mut messages = Vec::new();
        while let Some(done) = self.0.try_join_next() {
            messages.extend(done.unwrap_or_default());
        }
        messages
    }

    /// Waits for all removals, within a limit. A new session would otherwise wait for the dead members.
    pub async fn finish(&mut self) -> Vec<String> {
        let mut messages = Vec::new();
        let all = async {
            while let Some(done) = self.0.join_next().await {
                messages.extend(done.unwrap_or_default());
            }
        };
        // Whoever is not removed in time leaves with its session timeout.
        let _ = tokio::time::timeout(FINISH, all).await;
        messages
    }
}

async fn remove(clients: KafkaClients, group: ValidatedGroup, dead: Vec<DeadProcess>) -> Vec<String> {
    let (spec, protocol) = (&group.spec, group.spec.consumer.group_protocol);
    let mut attempt = 1;
    loop {
        let removed = clients
            .remove_members(&spec.kafka, &group.credentials, &group.group_id, protocol, &dead)
            .await;
        let again = matches!(removed, Err(KafkaProblem::Unreachable(_))) && attempt < ATTEMPTS;
        if !again {
            clients.invalidate(&GroupKey::new(&group.namespace, &group.name));
            return messages(removed, &dead);
        }
        attempt += 1;
        tokio::time::sleep(WAIT).await;
    }
}

fn messages(removed: Result<Vec<RemovedMember>, KafkaProblem>, dead: &[DeadProcess]) -> Vec<String> {
    match removed {
        Ok(members) => members
            .iter()
            .map(|member| {
                format!(
                    "{}: removed from the consumer group, so that {} assigned to other workers at once",
                    member.worker,
                    member.partitions()
                )
            })
            .collect(),
        Err(problem) => dead
            .iter()
            .map(|process| {
                format!(
                    "{}: cannot be removed from the consumer group, its partitions are assigned to other workers after the session timeout: {problem}",
                    process.worker
                )
            })
            .collect(),
    }
}

//! Other members of the consumer group of a local group: another program, or another session.

use super::LocalGroup;
use crate::group::members::{self, Known, Others};
use crate::kafka::KafkaClients;
use crate::kafka::model::{GroupFacts, GroupKey, KafkaFacts};
use crate::local::refresh::Notice;

impl LocalGroup {
    /// A notice when other members begin or cease to share the consumer group.
    pub(super) fn other_members(&mut self, clients: &KafkaClients, facts: &KafkaFacts) -> Option<Notice> {
        let others = match &facts.group {
            Some(group) if members::is_rebalancing(group) => return None,
            Some(group) => self.judge(clients, group),
            None => Others::default(),
        };
        let before = std::mem::replace(&mut self.others, others);
        let name = &self.prepared.valid.name;
        let text = match &self.others.shared {
            Some(shared) if before.shared.as_ref() != Some(shared) => {
                format!("{name}: {}", shared.with_reason())
            }
            None if before.shared.is_some() => format!("{name}: the consumer group is no longer shared"),
            _ => return None,
        };
        Some(Notice {
            reason: "GroupShared",
            text,
        })
    }

    fn judge(&self, clients: &KafkaClients, group: &GroupFacts) -> Others {
        let valid = &self.prepared.valid;
        let client_id = valid.spec.kafka.client_config.get("client.id");
        let known = Known {
            worker: &|run| self.workers.has_started(run),
            client_id: client_id.map(|value| value.0.as_str()),
            workers: self.workers.alive(),
        };
        let users = clients.users(&GroupKey::new(&valid.namespace, &valid.name), &valid.group_id);
        let users: Vec<String> = users
            .iter()
            .map(|user| format!("group {} of this session", user.name))
            .collect();
        let others = members::others(group, &known);
        let protocol = valid.spec.consumer.group_protocol;
        Others {
            shared: members::shared(&valid.group_id, protocol, group, &others, &users),
            present: !others.is_empty(),
        }
    }
}

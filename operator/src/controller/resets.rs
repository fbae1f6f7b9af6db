//! The KafkaOffsetResets of a scope. In: a client. Out: a cache, the reset that holds a group, and which groups
//! and resets a change concerns. Groups are served without it: a cluster whose CRD is not installed yet, or
//! where the operator may not watch resets, has none. Resets that were listed once hold their groups through
//! refusals of a few minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::spec::DesiredState;
use crds::{KafkaConsumerGroup, KafkaOffsetReset};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::optional_watch::{self, About};
use crate::group::reset_order;
use crate::kafka::model::GroupKey;

/// The kind, in messages.
const ABOUT: About = About {
    kinds: "KafkaOffsetResets",
    missing: "the CRD kafkaoffsetresets.kafka-consumer.dev is not installed; install it: kafka-consumer-operator crd | kubectl apply --server-side -f -",
    forbidden: "the operator may not watch kafkaoffsetresets; grant get, list, watch and delete on kafkaoffsetresets, and patch on kafkaoffsetresets/status",
};

/// A resource that may fail to parse.
pub type GuardedReset = DeserializeGuard<KafkaOffsetReset>;
/// The key of a reset in the queue.
pub type ResetRef = ObjectRef<GuardedReset>;

/// The resets of one scope, without their plans and lists of offsets.
#[derive(Clone)]
pub struct Resets {
    pub store: Store<GuardedReset>,
    /// Whether the cluster has been asked.
    known: watch::Receiver<bool>,
}

/// What a change of a reset concerns.
pub struct Changes {
    /// Groups that are held from now on, or no longer.
    pub groups: UnboundedReceiver<GroupKey>,
    pub resets: UnboundedReceiver<ResetRef>,
}

impl Resets {
    /// Watches in the background.
    pub fn start(api: Api<GuardedReset>) -> (Self, Changes) {
        let (store, writer) = reflector::store();
        let (known_sender, known) = watch::channel(false);
        let (group_sender, groups) = unbounded_channel();
        let (reset_sender, resets) = unbounded_channel();
        let mut watched = Watched {
            store: store.clone(),
            writer,
            holds: BTreeMap::new(),
            groups: group_sender,
            resets: reset_sender,
        };
        tokio::spawn(optional_watch::run(
            api,
            &ABOUT,
            known_sender,
            drop_lists,
            move |event| watched.take(event),
        ));
        (Self { store, known }, Changes { groups, resets })
    }

    /// Waits until the resets are known, or known not to be readable.
    pub async fn ready(&self) {
        let mut known = self.known.clone();
        // An error means that the watch has ended, and with it the process.
        let _ = known.wait_for(|known| *known).await;
    }

    /// The reset that holds the group at 0 workers, unless it is to be stopped anyway.
    pub fn hold_of(&self, group: &KafkaConsumerGroup) -> Option<String> {
        if group.spec.desired_state == DesiredState::Stopped {
            return None;
        }
        let name = group.name_any();
        let resets = self.of(&group.namespace().unwrap_or_default(), &name);
        reset_order::hold(&name, resets.iter().filter_map(|reset| reset.0.as_ref().ok()))
    }

    /// The resets of a group.
    pub fn of(&self, namespace: &str, group: &str) -> Vec<Arc<GuardedReset>> {
        of(&self.store, namespace, group)
    }
}

fn of(store: &Store<GuardedReset>, namespace: &str, group: &str) -> Vec<Arc<GuardedReset>> {
    store.state_filter(|reset| {
        let spec = reset.0.as_ref().ok().map(|reset| &reset.spec);
        reset.namespace().as_deref() == Some(namespace)
            && spec.is_some_and(|spec| spec.group_ref.name == group)
    })
}

/// The side that watches.
struct Watched {
    store: Store<GuardedReset>,
    writer: Writer<GuardedReset>,
    /// The reset that holds a group, as the group has been asked to reconcile.
    holds: BTreeMap<GroupKey, String>,
    groups: UnboundedSender<GroupKey>,
    resets: UnboundedSender<ResetRef>,
}

impl Watched {
    /// Takes in an event, and passes on what it concerns.
    fn take(&mut self, event: &watcher::Event<GuardedReset>) {
        self.writer.apply_watcher_event(event);
        match event {
            watcher::Event::Apply(reset) | watcher::Event::Delete(reset) => {
                let namespace = reset.namespace().unwrap_or_default();
                let _ = self.resets.send(ResetRef::from_obj(reset));
                let Ok(reset) = &reset.0 else { return };
                let group = GroupKey::new(&namespace, &reset.spec.group_ref.name);
                // Others may wait for this one.
                for other in of(&self.store, &group.namespace, &group.name) {
                    let _ = self.resets.send(ResetRef::from_obj(&*other));
                }
                self.update_hold(&group);
            }
            watcher::Event::InitDone => {
                let all = self.store.state();
                let mut groups: BTreeSet<GroupKey> = self.holds.keys().cloned().collect();
                for reset in all {
                    let _ = self.resets.send(ResetRef::from_obj(&*reset));
                    if let Ok(known) = &reset.0 {
                        let namespace = reset.namespace().unwrap_or_default();
                        groups.insert(GroupKey::new(&namespace, &known.spec.group_ref.name));
                    }
                }
                for group in groups {
                    self.update_hold(&group);
                }
            }
            watcher::Event::Init | watcher::Event::InitApply(_) => {}
        }
    }

    fn update_hold(&mut self, group: &GroupKey) {
        let resets = of(&self.store, &group.namespace, &group.name);
        let resets = resets.iter().filter_map(|reset| reset.0.as_ref().ok());
        let now = reset_order::hold(&group.name, resets);
        let before = match &now {
            Some(now) => self.holds.insert(group.clone(), now.clone()),
            None => self.holds.remove(group),
        };
        if before != now {
            let _ = self.groups.send(group.clone());
        }
    }
}

/// The plan and the offsets that were asked for can have thousands of partitions; who needs them reads the
/// resource.
fn drop_lists(reset: &mut GuardedReset) {
    let metadata = reset.meta_mut();
    metadata.managed_fields = None;
    // Of kubectl apply; it has the whole spec.
    metadata.annotations = None;
    let Ok(reset) = &mut reset.0 else { return };
    reset.spec.to.offsets = None;
    if let Some(status) = &mut reset.status {
        status.partitions = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use crds::offset_reset::ResetPhase;

    use super::*;
    use crate::fixtures::reset;

    fn watched() -> (Watched, Changes) {
        let (store, writer) = reflector::store();
        let (group_sender, groups) = unbounded_channel();
        let (reset_sender, resets) = unbounded_channel();
        let watched = Watched {
            store,
            writer,
            holds: BTreeMap::new(),
            groups: group_sender,
            resets: reset_sender,
        };
        (watched, Changes { groups, resets })
    }

    fn in_phase(name: &str, phase: ResetPhase) -> GuardedReset {
        let mut reset = reset(name, serde_json::json!({"stopGroup": true}));
        reset.status = Some(crds::KafkaOffsetResetStatus {
            phase: Some(phase),
            partitions: vec![crds::offset_reset::PlannedPartition {
                topic: "orders".into(),
                partition: 0,
                committed: None,
                new: 0,
                difference: None,
                clears_metadata: false,
                log_start: 0,
                end: 0,
                record_time: None,
                note: None,
            }],
            ..Default::default()
        });
        DeserializeGuard(Ok(reset))
    }

    fn groups(changes: &mut Changes) -> usize {
        std::iter::from_fn(|| changes.groups.try_recv().ok()).count()
    }

    #[test]
    fn a_group_is_reconciled_when_a_hold_starts_and_ends_and_not_otherwise() {
        let (mut watched, mut changes) = watched();
        let apply = |phase| watcher::Event::Apply(in_phase("again", phase));
        watched.take(&apply(ResetPhase::Pending));
        assert_eq!(groups(&mut changes), 0);
        watched.take(&apply(ResetPhase::Stopping));
        assert_eq!(groups(&mut changes), 1);
        watched.take(&apply(ResetPhase::Resetting));
        assert_eq!(groups(&mut changes), 0);
        watched.take(&apply(ResetPhase::Succeeded));
        assert_eq!(groups(&mut changes), 1);
        watched.take(&apply(ResetPhase::Stopping));
        watched.take(&watcher::Event::Delete(in_phase("again", ResetPhase::Stopping)));
        assert_eq!(groups(&mut changes), 2);
        // Deleted while the watch was interrupted, or the CRD was removed.
        watched.take(&apply(ResetPhase::Stopping));
        watched.take(&watcher::Event::Init);
        watched.take(&watcher::Event::InitDone);
        assert_eq!(groups(&mut changes), 2);
        assert!(watched.store.state().is_empty());
    }

    #[test]
    fn the_end_of_a_reset_requests_those_that_wait_for_it() {
        let (mut watched, mut changes) = watched();
        watched.take(&watcher::Event::Apply(in_phase("second", ResetPhase::Pending)));
        watched.take(&watcher::Event::Apply(in_phase("first", ResetPhase::Stopping)));
        while changes.resets.try_recv().is_ok() {}
        watched.take(&watcher::Event::Delete(in_phase("first", ResetPhase::Stopping)));
        let requested: BTreeSet<String> = std::iter::from_fn(|| changes.resets.try_recv().ok())
            .map(|reset| reset.name)
            .collect();
        assert_eq!(requested, ["first".to_string(), "second".to_string()].into());
    }

    #[test]
    fn the_cache_has_no_long_lists() {
        let mut reset = in_phase("again", ResetPhase::Succeeded);
        let offset = crds::offset_reset::PartitionOffset {
            topic: "orders".into(),
            partition: 0,
            offset: 1,
        };
        reset.0.as_mut().unwrap().spec.to.offsets = Some(vec![offset]);
        drop_lists(&mut reset);
        let reset = reset.0.unwrap();
        assert_eq!(reset.spec.to.offsets, None);
        assert!(reset.status.unwrap().partitions.is_empty());
    }
}

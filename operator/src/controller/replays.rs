//! The KafkaReplays of a scope. In: a client. Out: a cache, which replays a change concerns, and which ones were
//! deleted. Groups are served without it: a cluster whose CRD is not installed yet, or where the operator may not
//! watch replays, has none.

use crds::KafkaReplay;
use crds::replay::ReplayPhase;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Resource};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::optional_watch::{self, About};

/// The kind, in messages.
const ABOUT: About = About {
    kinds: "KafkaReplays",
    missing: "the CRD kafkareplays.kafka-consumer.dev is not installed; install it: kafka-consumer-operator crd | kubectl apply --server-side -f -",
    forbidden: "the operator may not watch kafkareplays; grant get, list, watch and delete on kafkareplays, patch on kafkareplays/status, and get, create and delete on jobs",
};

/// A resource that may fail to parse.
pub type GuardedReplay = DeserializeGuard<KafkaReplay>;
/// The key of a replay in the queue.
pub type ReplayRef = ObjectRef<GuardedReplay>;

/// What changes of replays concern.
pub struct Changes {
    pub replays: UnboundedReceiver<ReplayRef>,
    /// Replays that do not exist any more.
    pub deleted: UnboundedReceiver<KafkaReplay>,
}

/// Watches in the background. The cache has the replays without their plans and lists of offsets.
pub fn start(api: Api<GuardedReplay>) -> (Store<GuardedReplay>, Changes) {
    let (store, writer) = reflector::store();
    let (replay_sender, replays) = unbounded_channel();
    let (deleted_sender, deleted) = unbounded_channel();
    let mut watched = Watched {
        store: store.clone(),
        writer,
        replays: replay_sender,
        deleted: deleted_sender,
    };
    // Nobody waits for the first list: a replay that is not known yet concerns no group.
    let (known, _) = watch::channel(false);
    tokio::spawn(optional_watch::run(
        api,
        &ABOUT,
        known,
        drop_lists,
        move |event| {
            watched.take(event);
        },
    ));
    (store, Changes { replays, deleted })
}

/// The side that watches.
struct Watched {
    store: Store<GuardedReplay>,
    writer: Writer<GuardedReplay>,
    replays: UnboundedSender<ReplayRef>,
    deleted: UnboundedSender<KafkaReplay>,
}

impl Watched {
    /// Takes in an event, and passes on what it concerns.
    fn take(&mut self, event: &watcher::Event<GuardedReplay>) {
        let before = match event {
            watcher::Event::Apply(replay) => self.store.get(&ReplayRef::from_obj(replay)),
            _ => None,
        };
        self.writer.apply_watcher_event(event);
        match event {
            // Progress is written every few seconds, and must not request the next look at once.
            watcher::Event::Apply(replay)
                if before.is_none_or(|before| concerns(&before) != concerns(replay)) =>
            {
                let _ = self.replays.send(ReplayRef::from_obj(replay));
            }
            watcher::Event::Delete(replay) => {
                if let Ok(replay) = &replay.0 {
                    let _ = self.deleted.send(replay.clone());
                }
            }
            watcher::Event::InitDone => {
                for replay in self.store.state() {
                    let _ = self.replays.send(ReplayRef::from_obj(&*replay));
                }
            }
            watcher::Event::Apply(_) | watcher::Event::Init | watcher::Event::InitApply(_) => {}
        }
    }
}

/// What the next step depends on.
fn concerns(replay: &GuardedReplay) -> (Option<String>, bool, Option<ReplayPhase>) {
    let metadata = replay.meta();
    let status = replay.0.as_ref().ok().and_then(|replay| replay.status.as_ref());
    (
        metadata.uid.clone(),
        metadata.deletion_timestamp.is_some(),
        status.and_then(|status| status.phase),
    )
}

/// The plan and the offsets that were asked for can have thousands of partitions; who needs them reads the
/// resource.
fn drop_lists(replay: &mut GuardedReplay) {
    let metadata = replay.meta_mut();
    metadata.managed_fields = None;
    // Of kubectl apply; it has the whole spec.
    metadata.annotations = None;
    let Ok(replay) = &mut replay.0 else { return };
    replay.spec.from.offsets = None;
    replay.spec.to.offsets = None;
    if let Some(status) = &mut replay.status {
        status.partitions = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::replay;

    fn watched() -> (Watched, Changes) {
        let (store, writer) = reflector::store();
        let (replay_sender, replays) = unbounded_channel();
        let (deleted_sender, deleted) = unbounded_channel();
        let watched = Watched {
            store,
            writer,
            replays: replay_sender,
            deleted: deleted_sender,
        };
        (watched, Changes { replays, deleted })
    }

    fn in_phase(phase: ReplayPhase, processed: i64) -> GuardedReplay {
        let mut replay = replay("again", serde_json::json!({}));
        let totals = crds::replay::ReplayTotals {
            processed,
            ..Default::default()
        };
        replay.status = Some(crds::KafkaReplayStatus {
            phase: Some(phase),
            totals: Some(totals),
            ..Default::default()
        });
        DeserializeGuard(Ok(replay))
    }

    fn requested(changes: &mut Changes) -> usize {
        std::iter::from_fn(|| changes.replays.try_recv().ok()).count()
    }

    #[test]
    fn a_new_phase_requests_a_reconcile_and_progress_does_not() {
        let (mut watched, mut changes) = watched();
        let apply = |phase, processed| watcher::Event::Apply(in_phase(phase, processed));
        watched.take(&apply(ReplayPhase::Planned, 0));
        assert_eq!(requested(&mut changes), 1);
        watched.take(&apply(ReplayPhase::Running, 0));
        assert_eq!(requested(&mut changes), 1);
        watched.take(&apply(ReplayPhase::Running, 7));
        assert_eq!(requested(&mut changes), 0);
        let totals = watched.store.state()[0].0.as_ref().unwrap().status.clone();
        assert_eq!(totals.unwrap().totals.unwrap().processed, 7);
        let mut replaced = in_phase(ReplayPhase::Running, 7);
        replaced.meta_mut().uid = Some("another".into());
        watched.take(&watcher::Event::Apply(replaced));
        assert_eq!(requested(&mut changes), 1);
    }

    #[test]
    fn a_deleted_replay_is_reported_and_one_that_may_not_be_seen_is_not() {
        let (mut watched, mut changes) = watched();
        watched.take(&watcher::Event::Apply(in_phase(ReplayPhase::Running, 0)));
        watched.take(&watcher::Event::Init);
        watched.take(&watcher::Event::InitDone);
        assert!(changes.deleted.try_recv().is_err());
        watched.take(&watcher::Event::Delete(in_phase(ReplayPhase::Running, 0)));
        assert!(changes.deleted.try_recv().is_ok());
    }

    #[test]
    fn the_cache_has_no_long_lists() {
        let offset = serde_json::json!([{"topic": "orders", "partition": 0, "offset": 1}]);
        let bounds = serde_json::json!({"type": "Offsets", "offsets": offset});
        let changes = serde_json::json!({"from": bounds, "to": bounds});
        let mut replay: GuardedReplay = DeserializeGuard(Ok(replay("again", changes)));
        drop_lists(&mut replay);
        let spec = replay.0.unwrap().spec;
        assert_eq!((spec.from.offsets, spec.to.offsets), (None, None));
    }
}

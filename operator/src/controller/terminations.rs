//! Which worker processes have ended, according to the kubelet. In: a pod. Out: the end of its last process
//! that ended, with the time before which a process must have started to be dead. Pure, except for
//! [`DeletedPods`], which remembers pods that are deleted right after their end, and [`HandledTerminations`].
//!
//! Only a terminated container counts. A pod that vanished, or whose node does not report, may still run.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crds::names::GROUP_LABEL;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt;

use super::build::deployment::CONTAINER;
use super::pods::has_ended;
use crate::kafka::model::DeadProcess;
use crate::sync::lock;

/// The kubelet deletes a pod within a second after its last container has ended; a reconcile that waits for
/// Kafka comes later.
const REMEMBERED: Duration = Duration::from_secs(120);

/// Time until the next attempt while Kafka does not answer.
const RETRY: Duration = Duration::from_secs(2);

/// Attempts at that pace; later ones follow the refresh, because the session has probably timed out.
const QUICK_ATTEMPTS: u32 = 20;

/// The last end of the worker container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Termination {
    /// Distinguishes ends: the pod's uid, and the second in which the container ended.
    pub key: (String, i64),
    pub worker: String,
    /// Why, for messages: "OOMKilled, exit code 137".
    pub why: String,
    /// Processes that started before this time are dead, in Unix milliseconds.
    before: i64,
}

impl Termination {
    /// None: no process of this pod has ended, or it is not known when.
    pub fn of(pod: &Pod) -> Option<Self> {
        let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
        let container = containers.iter().find(|container| container.name == CONTAINER)?;
        let state = container.state.as_ref();
        let last = container.last_state.as_ref();
        let ended = state
            .and_then(|state| state.terminated.as_ref())
            .or_else(|| last?.terminated.as_ref())?;
        // The kubelet does not set it for a container that it could not find again.
        let finished = ended.finished_at.as_ref()?.0.as_second();
        // Whole seconds, cut, by the clock of the node, which is also the clock of the process. A process
        // that started in the same second may be the next one. So may one that started earlier, if the clock
        // was set back in between.
        let restarted = state.and_then(|state| state.running.as_ref()?.started_at.as_ref());
        let before = restarted.map_or(finished, |restarted| finished.min(restarted.0.as_second()));
        Some(Self {
            key: (pod.uid().unwrap_or_default(), finished),
            worker: pod.name_any(),
            why: why(ended),
            before: before.saturating_mul(1000),
        })
    }

    /// The processes that have ended.
    pub fn process(&self) -> DeadProcess {
        DeadProcess::before(&self.worker, self.before)
    }
}

fn why(ended: &ContainerStateTerminated) -> String {
    let code = format!("exit code {}", ended.exit_code);
    match ended.reason.as_deref() {
        // These repeat what the code says.
        None | Some("" | "Error" | "Completed") => code,
        Some(reason) => format!("{reason}, {code}"),
    }
}

/// Ends of workers whose pods are being deleted or have ended, for a while: the first may be gone before a
/// reconcile sees them, and the second, for example evicted ones, are no workers any more.
#[derive(Debug, Default)]
pub struct DeletedPods(Mutex<HashMap<String, DeletedPod>>);

#[derive(Debug)]
struct DeletedPod {
    noted: Instant,
    namespace: String,
    group_label: String,
    termination: Termination,
}

impl DeletedPods {
    /// Takes note of a pod that is being deleted or has ended, if its worker has ended.
    pub fn note(&self, pod: &Pod) {
        if pod.metadata.deletion_timestamp.is_none() && !has_ended(pod) {
            return;
        }
        let Some(termination) = Termination::of(pod) else {
            return;
        };
        let mut pods = lock(&self.0);
        pods.retain(|_, pod| pod.noted.elapsed() < REMEMBERED);
        let deleted = DeletedPod {
            noted: Instant::now(),
            namespace: pod.namespace().unwrap_or_default(),
            group_label: pod.labels().get(GROUP_LABEL).cloned().unwrap_or_default(),
            termination,
        };
        pods.insert(pod.uid().unwrap_or_default(), deleted);
    }

    /// The ends of workers of one group.
    pub fn of(&self, namespace: &str, group_label: &str) -> Vec<Termination> {
        let pods = lock(&self.0);
        let mine = pods.values().filter(|pod| {
            pod.namespace == namespace && pod.group_label == group_label && pod.noted.elapsed() < REMEMBERED
        });
        mine.map(|pod| pod.termination.clone()).collect()
    }
}

/// The ends of workers that need nothing more.
#[derive(Debug, Default)]
pub struct HandledTerminations {
    done: Vec<(String, i64)>,
    failures: u32,
}

impl HandledTerminations {
    /// Those of `all` that are not done. Forgets ends that nobody reports any more.
    pub fn new_ones(&mut self, all: Vec<Termination>) -> Vec<Termination> {
        self.done.retain(|key| all.iter().any(|ended| ended.key == *key));
        let mut new: Vec<Termination> = Vec::new();
        for ended in all {
            let known = self.done.contains(&ended.key) || new.iter().any(|other| other.key == ended.key);
            if !known {
                new.push(ended);
            }
        }
        new
    }

    /// They need nothing more.
    pub fn done(&mut self, ended: &[Termination]) {
        self.done.extend(ended.iter().map(|ended| ended.key.clone()));
        self.failures = 0;
    }

    /// The time until the next attempt; None: with the next reconcile.
    pub fn failed(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        (self.failures < QUICK_ATTEMPTS).then_some(RETRY)
    }
}

#[cfg(test)]
mod tests {
    use crds::incarnation::Incarnation;
    use serde_json::{Value, json};

    use super::*;

    /// 2026-11-30T02:00:00Z in Unix milliseconds.
    const END: i64 = 1_796_004_000_000;

    fn pod(state: Value, last: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "orders-worker-abc", "namespace": "shop", "uid": "1-2-3",
                "labels": {"kafka-consumer.dev/group": "orders"},
            },
            "status": {"containerStatuses": [
                {"name": "sidecar", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"terminated": {"exitCode": 0, "finishedAt": "2026-11-30T03:00:00Z"}}},
                {"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 3,
                 "state": state, "lastState": last},
            ]},
        }))
        .unwrap()
    }

    fn ended(reason: &str, code: i32) -> Value {
        json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": "2026-11-30T02:00:00Z"}})
    }

    fn is_dead(termination: &Termination, started: i64) -> bool {
        termination.process().was(&Incarnation {
            worker: "orders-worker-abc".into(),
            started,
        })
    }

    #[test]
    fn a_terminated_container_is_an_end_before_and_after_its_restart() {
        let running = json!({"running": {"startedAt": "2026-11-30T02:00:00Z"}});
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let killed = || ended("Error", 137);
        for (state, last) in [
            (killed(), json!({})),
            (waiting, killed()),
            (running, killed()),
            // The end of this process counts, not the one before.
            (
                killed(),
                json!({"terminated": {"exitCode": 1, "finishedAt": "2026-11-30T01:00:00Z"}}),
            ),
        ] {
            let termination = Termination::of(&pod(state.clone(), last)).unwrap();
            assert_eq!(termination.why, "exit code 137", "{state}");
            assert!(is_dead(&termination, END - 1), "{state}");
            // The same second: this may be the next process.
            assert!(!is_dead(&termination, END), "{state}");
        }
        let oom = Termination::of(&pod(ended("OOMKilled", 137), json!({}))).unwrap();
        assert_eq!(oom.why, "OOMKilled, exit code 137");
    }

    #[test]
    fn a_process_that_may_run_is_never_dead() {
        let running = json!({"running": {"startedAt": "2026-11-30T01:59:50Z"}});
        assert_eq!(Termination::of(&pod(running.clone(), json!({}))), None);
        // The clock was set back by 10 s between end and restart.
        let termination = Termination::of(&pod(running, ended("Error", 137))).unwrap();
        assert!(!is_dead(&termination, END - 10_000));
        assert!(is_dead(&termination, END - 10_001));
        // The kubelet lost the container.
        let unknown =
            json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "finishedAt": null}});
        assert_eq!(Termination::of(&pod(unknown, json!({}))), None);
        assert_eq!(Termination::of(&Pod::default()), None);
        let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
        assert_eq!(Termination::of(&pod(waiting, json!({}))), None);
    }

    #[test]
    fn a_pod_that_is_deleted_right_after_its_end_is_remembered() {
        let deleted = DeletedPods::default();
        let mut pod = pod(ended("Error", 137), json!({}));
        deleted.note(&pod);
        assert!(deleted.of("shop", "orders").is_empty(), "it is still there");
        pod.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-11-30T01:59:00Z")).unwrap());
        deleted.note(&pod);
        deleted.note(&pod);
        assert_eq!(deleted.of("shop", "orders"), [Termination::of(&pod).unwrap()]);
        assert!(deleted.of("shop", "returns").is_empty());
        // An evicted pod is not deleted.
        let evicted = DeletedPods::default();
        pod.metadata.deletion_timestamp = None;
        if let Some(status) = &mut pod.status {
            status.phase = Some("Failed".into());
        }
        evicted.note(&pod);
        assert_eq!(evicted.of("shop", "orders"), [Termination::of(&pod).unwrap()]);
        assert!(deleted.of("other", "orders").is_empty());
    }

    fn end(worker: &str, second: i64) -> Termination {
        let ended = Termination::of(&pod(ended("Error", 137), json!({}))).unwrap();
        Termination {
            key: (worker.into(), second),
            ..ended
        }
    }

    #[test]
    fn each_end_is_handled_once_and_repeated_only_while_kafka_does_not_answer() {
        let mut memory = HandledTerminations::default();
        let (a, b) = (end("a", 10), end("b", 10));
        let both = || vec![a.clone(), b.clone(), a.clone()];
        assert_eq!(memory.new_ones(both()), [a.clone(), b.clone()]);
        assert_eq!(memory.failed(), Some(RETRY));
        assert_eq!(memory.new_ones(both()), [a.clone(), b.clone()]);
        memory.done(&[a.clone(), b.clone()]);
        assert!(memory.new_ones(both()).is_empty());
        // The container ends again, and the other pod is gone.
        let again = end("a", 20);
        assert_eq!(memory.new_ones(vec![again.clone()]), [again]);
        assert!(memory.done.is_empty());
    }

    #[test]
    fn attempts_slow_down_when_the_session_has_probably_timed_out() {
        let mut memory = HandledTerminations::default();
        let quick = (0..1000).filter(|_| memory.failed().is_some()).count();
        assert_eq!(quick, QUICK_ATTEMPTS as usize - 1);
    }
}

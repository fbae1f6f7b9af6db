//! How many workers should run, and the next steps towards it. In: decisions of `scaling`, limits of this
//! machine, what runs now. Out: numbers and steps. Pure; the time is a parameter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crds::spec::KafkaConsumerGroupSpec;

use crate::group::scaling::{Decision, ScalingFacts, decide};
use crate::group::topics::writer_topics;

/// Partitions of topics in the embedded broker if the spec sets no number: visible parallelism, few enough
/// for a table.
pub const EMBEDDED_PARTITIONS: i32 = 6;

/// Backoff before an exited worker is restarted.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A worker that ran this long was healthy; its next exit starts the backoff again.
const HEALTHY: Duration = Duration::from_secs(60);

/// The number of workers on this machine, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    pub workers: usize,
    pub reason: String,
}

/// The decision of the operator, then the limit of this machine.
pub fn size(spec: &KafkaConsumerGroupSpec, facts: ScalingFacts<'_>, max_workers: i32) -> Size {
    let Decision { replicas, reason, .. } = decide(spec, facts);
    if replicas > max_workers {
        let reason = format!("{reason}; limited to {max_workers} on this machine by --max-workers");
        return Size {
            workers: usize::try_from(max_workers).unwrap_or(0),
            reason,
        };
    }
    Size {
        workers: usize::try_from(replicas).unwrap_or(0),
        reason,
    }
}

/// The state of one worker slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    Running {
        /// True if it runs the latest version of its configuration.
        current: bool,
    },
    /// Stop requested, draining.
    Stopping,
    /// Exited; to be restarted at this time.
    Waiting {
        until: Instant,
        current: bool,
    },
    Empty,
}

/// What to do with one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Start(usize),
    Stop(usize),
    /// Remove an exited worker that is no longer wanted.
    Clear(usize),
}

/// The next steps. New versions are rolled out one worker at a time, so that the others keep running.
pub fn steps(slots: &[SlotState], wanted: usize, now: Instant) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut stable = true;
    for (index, slot) in slots.iter().enumerate() {
        match *slot {
            SlotState::Running { .. } if index >= wanted => steps.push(Step::Stop(index)),
            SlotState::Waiting { .. } if index >= wanted => steps.push(Step::Clear(index)),
            SlotState::Empty if index < wanted => steps.push(Step::Start(index)),
            // A changed configuration is tried at once.
            SlotState::Waiting { until, current } if now >= until || !current => {
                steps.push(Step::Start(index))
            }
            SlotState::Stopping | SlotState::Waiting { .. } => stable = false,
            SlotState::Running { .. } | SlotState::Empty => {}
        }
    }
    steps.extend((slots.len()..wanted).map(Step::Start));
    if stable && steps.is_empty() {
        let outdated = slots
            .iter()
            .position(|slot| *slot == SlotState::Running { current: false });
        steps.extend(outdated.map(Step::Stop));
    }
    steps
}

/// The number of exits in a row and the backoff, after `exits` earlier ones and one more after `lived`.
pub fn backoff(exits: u32, lived: Duration) -> (u32, Duration) {
    let exits = if lived >= HEALTHY {
        1
    } else {
        exits.saturating_add(1)
    };
    let wait = FIRST_BACKOFF
        .saturating_mul(1 << (exits - 1).min(10))
        .min(MAX_BACKOFF);
    (exits, wait)
}

/// All topics that a group reads and writes, for the embedded broker, which starts empty and has no admin
/// requests.
pub fn embedded_topics(spec: &KafkaConsumerGroupSpec) -> BTreeMap<String, i32> {
    let mut topics: BTreeMap<String, i32> = spec
        .topics
        .iter()
        .map(|topic| {
            let asked = topic.provision.as_ref().map(|provision| provision.partitions);
            (topic.name.clone(), asked.unwrap_or(EMBEDDED_PARTITIONS))
        })
        .collect();
    let largest = topics.values().copied().max().unwrap_or(EMBEDDED_PARTITIONS);
    let written = writer_topics(spec).map(|(_, topic)| topic);
    let dead_letters = spec
        .error_handling
        .dead_letter
        .iter()
        .map(|dead_letter| &dead_letter.topic);
    for topic in written.chain(dead_letters) {
        topics.entry(topic.clone()).or_insert(largest);
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::scaling::Start;

    fn spec(more: &str) -> KafkaConsumerGroupSpec {
        let text = format!(
            "{{topics: [{{name: orders}}], kafka: {{bootstrapServers: ['k:1']}}, writers: [{{name: out, type: Kafka, kafka: {{topic: clean}}}}], {more}}}"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    const RUNS: SlotState = SlotState::Running { current: true };
    const OLD: SlotState = SlotState::Running { current: false };

    #[test]
    fn the_decision_is_limited_by_this_machine_and_the_reason_says_so() {
        let facts = ScalingFacts {
            partitions: Some(6),
            current: None,
            start: Start::Ready,
            hold: None,
        };
        assert_eq!(size(&spec(""), facts, 8).workers, 6);
        let limited = size(&spec(""), facts, 2);
        assert_eq!(limited.workers, 2);
        assert!(limited.reason.contains("--max-workers"), "{}", limited.reason);
        assert_eq!(size(&spec("desiredState: Stopped"), facts, 2).workers, 0);
    }

    #[test]
    fn missing_workers_start_and_surplus_ones_stop() {
        let now = Instant::now();
        assert_eq!(steps(&[], 2, now), [Step::Start(0), Step::Start(1)]);
        assert_eq!(steps(&[RUNS, SlotState::Empty], 2, now), [Step::Start(1)]);
        let waiting = SlotState::Waiting {
            until: now + HEALTHY,
            current: true,
        };
        assert_eq!(
            steps(&[RUNS, RUNS, waiting], 1, now),
            [Step::Stop(1), Step::Clear(2)]
        );
    }

    #[test]
    fn a_new_version_rolls_one_worker_at_a_time() {
        let now = Instant::now();
        assert_eq!(steps(&[OLD, OLD], 2, now), [Step::Stop(0)]);
        assert_eq!(steps(&[SlotState::Stopping, OLD], 2, now), []);
        assert_eq!(steps(&[SlotState::Empty, OLD], 2, now), [Step::Start(0)]);
        assert_eq!(steps(&[RUNS, OLD], 2, now), [Step::Stop(1)]);
        assert_eq!(steps(&[RUNS, RUNS], 2, now), []);
    }

    #[test]
    fn an_exited_worker_waits_unless_its_configuration_has_changed() {
        let now = Instant::now();
        let until = now + FIRST_BACKOFF;
        assert_eq!(
            steps(&[SlotState::Waiting { until, current: true }, OLD], 2, now),
            []
        );
        assert_eq!(
            steps(&[SlotState::Waiting { until, current: true }], 1, until),
            [Step::Start(0)]
        );
        assert_eq!(
            steps(
                &[SlotState::Waiting {
                    until,
                    current: false
                }],
                1,
                now
            ),
            [Step::Start(0)]
        );
    }

    #[test]
    fn the_backoff_doubles_up_to_half_a_minute_and_restarts_after_a_healthy_run() {
        let short = Duration::ZERO;
        assert_eq!(backoff(0, short), (1, Duration::from_secs(1)));
        assert_eq!(backoff(1, short), (2, Duration::from_secs(2)));
        assert_eq!(backoff(40, short), (41, MAX_BACKOFF));
        assert_eq!(backoff(40, HEALTHY), (1, FIRST_BACKOFF));
    }

    #[test]
    fn the_embedded_broker_gets_every_topic_of_the_group() {
        let spec = spec("errorHandling: {deadLetter: {topic: orders.dlq}}");
        let topics: Vec<_> = embedded_topics(&spec).into_iter().collect();
        let expected = [("clean", 6), ("orders", 6), ("orders.dlq", 6)];
        assert_eq!(
            topics,
            expected.map(|(topic, partitions)| (topic.to_string(), partitions))
        );
    }
}

//! Histories of workers that do everything right, made from a list of steps: reading on, writing, committing what is written,
//! crashing, standing still while others go on. The checker must find no fault in any of them, and must find every fault
//! that is put into one.

use proptest::prelude::*;

use super::{faults::FAULTS, *};

pub(super) const PARTITIONS: i32 = 2;
const KEYS: u32 = 4;
const OUTPUTS: i32 = 3;

/// Something that happens to the owner of a partition.
#[derive(Clone, Debug)]
enum Step {
    /// Writes this many records.
    Write(i32, usize),
    /// Commits all that is written, or all but a few.
    Commit(i32, usize),
    /// Dies: the next owner begins at the committed offset.
    Crash(i32),
    /// A former owner, which stood still, writes once more what it had read from the committed offset on.
    Zombie(i32, usize),
    /// The harness looks.
    Look,
}

struct Partition {
    next: usize,
    committed: usize,
}

struct World {
    history: History,
    partitions: Vec<Partition>,
    ends: BTreeMap<i32, i64>,
    letter_ends: BTreeMap<i32, i64>,
}

impl World {
    fn new(records: usize) -> Self {
        let sent = |at: usize| Sent {
            // Offsets have gaps where transactions end.
            offset: (at + at / 5) as i64,
            key: (at * 7 / 3) as u32 % KEYS,
            poison: at % 11 == 4,
        };
        let inputs = (0..PARTITIONS)
            .map(|partition| (partition, (0..records).map(sent).collect()))
            .collect();
        let mut world = Self {
            history: History {
                inputs,
                ..History::default()
            },
            partitions: (0..PARTITIONS)
                .map(|_| Partition {
                    next: 0,
                    committed: 0,
                })
                .collect(),
            ends: (0..OUTPUTS).map(|output| (output, 0)).collect(),
            letter_ends: [(0, 0)].into(),
        };
        world.look();
        world
    }

    fn sent(&self, partition: i32) -> &[Sent] {
        &self.history.inputs[&partition]
    }

    fn write(&mut self, partition: i32, from: usize, count: usize) -> usize {
        let to = (from + count).min(self.sent(partition).len());
        for seq in from..to {
            let sent = self.sent(partition)[seq];
            // By key alone, as a producer does.
            let target = if sent.poison {
                0
            } else {
                (partition as u32 * KEYS + sent.key) as i32 % OUTPUTS
            };
            let ends = if sent.poison {
                &mut self.letter_ends
            } else {
                &mut self.ends
            };
            let end = ends.entry(target).or_default();
            let arrival = Arrival {
                place: Place {
                    partition: target,
                    offset: *end,
                },
                what: What::Record {
                    partition,
                    seq: seq as u64,
                },
            };
            *end += 1;
            if sent.poison {
                self.history.letters.push(arrival);
            } else {
                self.history.output.push(arrival);
                self.history.live.push(arrival.place);
                self.history.uncommitted_total += 1;
            }
        }
        to
    }

    fn look(&mut self) {
        let committed = (0..)
            .zip(&self.partitions)
            .map(|(partition, state)| {
                let sent = self.sent(partition);
                let end = sent.last().map_or(0, |last| last.offset + 1);
                (
                    partition,
                    sent.get(state.committed).map_or(end, |record| record.offset),
                )
            })
            .collect();
        self.history.samples.push(Sample {
            committed,
            output_ends: self.ends.clone(),
            letter_ends: self.letter_ends.clone(),
        });
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write(partition, count) => {
                let next = self.partitions[partition as usize].next;
                self.partitions[partition as usize].next = self.write(partition, next, count);
            }
            Step::Commit(partition, but) => {
                let state = &mut self.partitions[partition as usize];
                state.committed = state.committed.max(state.next.saturating_sub(but));
            }
            Step::Crash(partition) => {
                let state = &mut self.partitions[partition as usize];
                state.next = state.committed;
            }
            Step::Zombie(partition, count) => {
                // It had read on from the commit, and what it had not read it cannot write.
                let state = &self.partitions[partition as usize];
                let (committed, next) = (state.committed, state.next);
                self.write(partition, committed, count.min(next - committed));
            }
            Step::Look => self.look(),
        }
    }
}

/// The history of these steps, brought to its end.
fn history(records: usize, steps: &[Step]) -> History {
    let mut world = World::new(records);
    for step in steps {
        world.step(step);
    }
    for partition in 0..PARTITIONS {
        world.step(&Step::Write(partition, records));
        world.step(&Step::Commit(partition, 0));
    }
    world.look();
    world.history
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = 0..PARTITIONS;
    let step = prop_oneof![
        4 => (partition.clone(), 1..12_usize).prop_map(|(partition, count)| Step::Write(partition, count)),
        3 => (partition.clone(), 0..6_usize).prop_map(|(partition, but)| Step::Commit(partition, but)),
        1 => partition.clone().prop_map(Step::Crash),
        1 => (partition, 1..9_usize).prop_map(|(partition, count)| Step::Zombie(partition, count)),
        2 => Just(Step::Look),
    ];
    prop::collection::vec(step, 0..60)
}

fn total(verdict: &Verdict) -> u64 {
    Kind::ALL.into_iter().map(|kind| verdict.count(kind)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Crashes and zombies repeat records, and that is all they do.
    #[test]
    fn workers_that_do_everything_right_are_never_blamed(records in 1..60_usize, steps in steps()) {
        let verdict = check(history(records, &steps));
        let promise = Promise {
            guarantee: Guarantee::AtLeastOnce,
            ordering: Ordering::PerPartition,
            allowance: u64::MAX,
            late: 0,
        };
        prop_assert!(promise.broken_by(&verdict).is_empty(), "{}", verdict);
        let calm = steps.iter().all(|step| !matches!(step, Step::Crash(_) | Step::Zombie(..)));
        if calm {
            prop_assert_eq!(total(&verdict), 0, "{}", verdict);
        }
    }

    /// A fault more is a finding more, of its own kind.
    #[test]
    fn every_fault_is_found(
        records in 12..60_usize,
        steps in steps(),
        fault in prop::sample::select((0..FAULTS.len()).collect::<Vec<_>>()),
        index in any::<prop::sample::Index>(),
    ) {
        let mut history = history(records, &steps);
        let before = check(history.clone());
        if let Some(kind) = FAULTS[fault](&mut history, index) {
            let after = check(history);
            prop_assert!(after.count(kind) > before.count(kind), "{:?}: {}", kind, after);
        }
    }
}

#[test]
fn there_is_a_fault_of_every_kind() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let steps = [
        Step::Write(0, 30),
        Step::Write(1, 30),
        Step::Look,
        Step::Commit(0, 0),
        Step::Commit(1, 0),
        Step::Look,
    ];
    let kinds: std::collections::BTreeSet<Kind> = (0..64)
        .map(|_| {
            any::<prop::sample::Index>()
                .new_tree(&mut runner)
                .unwrap()
                .current()
        })
        .flat_map(|index| FAULTS.iter().map(move |fault| (fault, index)))
        .filter_map(|(fault, index)| fault(&mut history(40, &steps), index))
        .collect();
    assert_eq!(Vec::from_iter(kinds), Kind::ALL);
}

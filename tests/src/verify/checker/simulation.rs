//! Histories of workers that do everything right, made from a list of steps: reading on, writing, committing what is written,
//! crashing, standing still while others go on. The checker must find no fault in any of them, and must find every fault
//! that is put into one.

use proptest::prelude::*;

use super::{faults::FAULTS, *};

pub(super) const PARTITIONS: i32 = 2;
const KEYS: u32 = 4;
const OUTPUTS: i32 = 3;

/// How workers store their offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// For themselves, after the records.
    Apart,
    /// In one transaction with records and dead letters.
    Transactions,
    /// In one transaction with the rows. Dead letters come before it, the group's own offsets after it.
    Table,
}

/// Something that happens to the owner of a partition.
#[derive(Clone, Debug)]
enum Step {
    /// Writes this many records.
    Write(i32, usize),
    /// Commits all that is written; without transactions, all but a few.
    Commit(i32, usize),
    /// Dies, or its transaction is aborted: the next owner begins at the committed offset.
    Crash(i32),
    /// A former owner, which stood still, writes once more what it had read from the committed offset on. Its transaction
    /// comes to nothing.
    Zombie(i32, usize),
    /// The harness looks.
    Look,
}

#[derive(Default)]
struct Partition {
    next: usize,
    committed: usize,
    /// With a table: where its next owner begins.
    stored: usize,
    /// What is written and not committed yet.
    open: Written,
}

#[derive(Default)]
struct Written {
    output: Vec<Arrival>,
    letters: Vec<Arrival>,
}

struct World {
    mode: Mode,
    history: History,
    partitions: Vec<Partition>,
    ends: BTreeMap<i32, i64>,
    letter_ends: BTreeMap<i32, i64>,
}

impl World {
    fn new(mode: Mode, records: usize) -> Self {
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
            mode,
            history: History {
                inputs,
                ..History::default()
            },
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            ends: (0..OUTPUTS).map(|output| (output, 0)).collect(),
            letter_ends: [(0, 0)].into(),
        };
        world.look();
        world
    }

    fn sent(&self, partition: i32) -> &[Sent] {
        &self.history.inputs[&partition]
    }

    fn state(&mut self, partition: i32) -> &mut Partition {
        &mut self.partitions[partition as usize]
    }

    /// Appends records to the logs; nobody sees them yet.
    fn write(&mut self, partition: i32, from: usize, count: usize) -> (usize, Written) {
        let to = (from + count).min(self.sent(partition).len());
        let mut written = Written::default();
        for seq in from..to {
            let sent = self.sent(partition)[seq];
            let target = match (sent.poison, self.mode) {
                (true, _) => 0,
                // The log of a table is divided as the input is.
                (false, Mode::Table) => partition,
                // By key alone, as a producer does.
                (false, _) => (partition as u32 * KEYS + sent.key) as i32 % OUTPUTS,
            };
            let (ends, log) = if sent.poison {
                (&mut self.letter_ends, &mut written.letters)
            } else {
                self.history.uncommitted_total += 1;
                (&mut self.ends, &mut written.output)
            };
            let end = ends.entry(target).or_default();
            log.push(Arrival {
                place: Place {
                    partition: target,
                    offset: *end,
                },
                what: What::Record {
                    partition,
                    seq: seq as u64,
                },
            });
            *end += 1;
        }
        if self.mode == Mode::Table {
            self.history.letters.append(&mut written.letters);
        }
        (to, written)
    }

    /// From now on everybody sees them.
    fn publish(&mut self, written: Written) {
        let places = written.output.iter().map(|arrival| arrival.place);
        self.history.live.extend(places);
        self.history.output.extend(written.output);
        self.history.letters.extend(written.letters);
    }

    /// A topic ends behind all that is written, a table's log behind all that can be seen.
    fn output_ends(&self) -> BTreeMap<i32, i64> {
        if self.mode != Mode::Table {
            return self.ends.clone();
        }
        let mut ends = BTreeMap::new();
        for Arrival { place, .. } in &self.history.output {
            let end = ends.entry(place.partition).or_default();
            *end = place.offset.max(*end - 1) + 1;
        }
        ends
    }

    fn look(&mut self) {
        let offsets = |position: fn(&Partition) -> usize| -> BTreeMap<i32, i64> {
            (0..)
                .zip(&self.partitions)
                .map(|(partition, state)| {
                    let sent = self.sent(partition);
                    let end = sent.last().map_or(0, |last| last.offset + 1);
                    let next = sent.get(position(state));
                    (partition, next.map_or(end, |record| record.offset))
                })
                .collect()
        };
        let sample = Sample {
            committed: offsets(|state| state.committed),
            stored: match self.mode {
                Mode::Table => offsets(|state| state.stored),
                _ => BTreeMap::new(),
            },
            output_ends: self.output_ends(),
            letter_ends: self.letter_ends.clone(),
        };
        self.history.samples.push(sample);
    }

    fn step(&mut self, step: &Step) {
        let mode = self.mode;
        match *step {
            Step::Write(partition, count) => {
                let next = self.state(partition).next;
                let (next, mut written) = self.write(partition, next, count);
                let state = self.state(partition);
                state.next = next;
                if mode == Mode::Apart {
                    self.publish(written);
                } else {
                    state.open.output.append(&mut written.output);
                    state.open.letters.append(&mut written.letters);
                }
            }
            Step::Commit(partition, but) => {
                let state = self.state(partition);
                let open = std::mem::take(&mut state.open);
                state.committed = match mode {
                    Mode::Apart => state.committed.max(state.next.saturating_sub(but)),
                    Mode::Transactions => state.next,
                    Mode::Table => state.stored,
                };
                state.stored = state.next;
                self.publish(open);
            }
            Step::Crash(partition) => {
                let state = self.state(partition);
                state.open = Written::default();
                state.next = match mode {
                    Mode::Table => state.stored,
                    _ => state.committed,
                };
            }
            Step::Zombie(partition, count) => {
                // It had read on from the commit, and what it had not read it cannot write.
                let state = self.state(partition);
                let (committed, next) = (state.committed, state.next);
                let (_, written) = self.write(partition, committed, count.min(next - committed));
                if mode == Mode::Apart {
                    self.publish(written);
                }
            }
            Step::Look => self.look(),
        }
    }
}

/// The history of these steps, brought to its end.
fn history(mode: Mode, records: usize, steps: &[Step]) -> History {
    let mut world = World::new(mode, records);
    for step in steps {
        world.step(step);
    }
    for partition in 0..PARTITIONS {
        world.step(&Step::Write(partition, records));
        world.step(&Step::Commit(partition, 0));
        // The group's own offsets are one behind those of a table.
        world.step(&Step::Commit(partition, 0));
    }
    world.look();
    world.history
}

fn modes() -> impl Strategy<Value = Mode> {
    prop::sample::select(vec![Mode::Apart, Mode::Transactions, Mode::Table])
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

    /// Crashes and zombies repeat records, and that is all they do; with transactions not even that.
    #[test]
    fn workers_that_do_everything_right_are_never_blamed(
        mode in modes(),
        records in 1..60_usize,
        steps in steps(),
    ) {
        let verdict = check(history(mode, records, &steps));
        let promise = Promise {
            guarantee: match mode {
                Mode::Apart => Guarantee::AtLeastOnce,
                Mode::Transactions | Mode::Table => Guarantee::ExactlyOnce,
            },
            ordering: Ordering::PerPartition,
            sink: match mode {
                Mode::Apart | Mode::Transactions => Sink::Kafka,
                Mode::Table => Sink::Postgres,
            },
            allowance: u64::MAX,
            letters: u64::MAX,
            late: 0,
        };
        prop_assert!(promise.broken_by(&verdict).is_empty(), "{}", verdict);
        let calm = steps.iter().all(|step| !matches!(step, Step::Crash(_) | Step::Zombie(..)));
        if calm {
            prop_assert_eq!((total(&verdict), verdict.aborted), (0, 0), "{}", verdict);
        }
    }

    /// A fault more is a finding more, of its own kind.
    #[test]
    fn every_fault_is_found(
        mode in modes(),
        records in 12..60_usize,
        steps in steps(),
        fault in prop::sample::select((0..FAULTS.len()).collect::<Vec<_>>()),
        index in any::<prop::sample::Index>(),
    ) {
        let mut history = history(mode, records, &steps);
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
        .filter_map(|(fault, index)| fault(&mut history(Mode::Table, 40, &steps), index))
        .collect();
    assert_eq!(Vec::from_iter(kinds), Kind::ALL);
}

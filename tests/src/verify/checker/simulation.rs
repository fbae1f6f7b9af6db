//! Histories of workers that do everything right, made from a list of steps: read, write, commit what is
//! written, crash, freeze while others continue. The checker must find no fault in any of them, and must find
//! every fault that is inserted into one.

use proptest::prelude::*;

use super::{faults::FAULTS, *};

pub(super) const PARTITIONS: i32 = 2;
const KEYS: u32 = 4;
const OUTPUTS: i32 = 3;

/// How workers store their offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Separately, after the records.
    Apart,
    /// In one transaction with records and dead letters.
    Transactions,
    /// In one transaction with the rows. Dead letters are written before it, the group's own offsets after
    /// it.
    Table,
}

/// Something that happens to the owner of a partition.
#[derive(Clone, Debug)]
enum Action {
    /// Writes this many records.
    Write(i32, usize),
    /// Commits everything that is written; without transactions, all except a few records.
    Commit(i32, usize),
    /// Crashes, or its transaction is aborted: the next owner starts at the committed offset.
    Crash(i32),
    /// A former owner, which was frozen, writes again what it had read after the committed offset. Its
    /// transaction is aborted.
    Zombie(i32, usize),
    /// The harness takes a sample.
    Look,
}

#[derive(Default)]
struct SimulatedPartition {
    next: usize,
    committed: usize,
    /// With a table: where its next owner starts.
    stored: usize,
    /// What is written and not yet committed.
    open: Written,
}

#[derive(Default)]
struct Written {
    output: Vec<Arrival>,
    letters: Vec<Arrival>,
}

struct SimulatedGroup {
    mode: Mode,
    history: History,
    partitions: Vec<SimulatedPartition>,
    ends: BTreeMap<i32, i64>,
    letter_ends: BTreeMap<i32, i64>,
}

impl SimulatedGroup {
    fn new(mode: Mode, records: usize) -> Self {
        let sent = |at: usize| Sent {
            // Ends of transactions leave gaps between offsets.
            offset: (at + at / 5) as i64,
            key: (at * 7 / 3) as u32 % KEYS,
            poison: at % 11 == 4,
        };
        let inputs = (0..PARTITIONS)
            .map(|partition| (partition, (0..records).map(sent).collect()))
            .collect();
        let mut group = Self {
            mode,
            history: History {
                inputs,
                ..History::default()
            },
            partitions: (0..PARTITIONS).map(|_| SimulatedPartition::default()).collect(),
            ends: (0..OUTPUTS).map(|output| (output, 0)).collect(),
            letter_ends: [(0, 0)].into(),
        };
        group.look();
        group
    }

    fn sent(&self, partition: i32) -> &[Sent] {
        &self.history.inputs[&partition]
    }

    fn state(&mut self, partition: i32) -> &mut SimulatedPartition {
        &mut self.partitions[partition as usize]
    }

    /// Appends records to the logs; they are not visible yet.
    fn write(&mut self, partition: i32, from: usize, count: usize) -> (usize, Written) {
        let to = (from + count).min(self.sent(partition).len());
        let mut written = Written::default();
        for seq in from..to {
            let sent = self.sent(partition)[seq];
            let target = match (sent.poison, self.mode) {
                (true, _) => 0,
                // The log of a table has the partitions of the input.
                (false, Mode::Table) => partition,
                // By key alone, as a producer does it.
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

    /// Makes them visible.
    fn publish(&mut self, written: Written) {
        let places = written.output.iter().map(|arrival| arrival.place);
        self.history.live.extend(places);
        self.history.output.extend(written.output);
        self.history.letters.extend(written.letters);
    }

    /// A topic ends after everything that is written, a table's log after everything that is visible.
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
        let offsets = |position: fn(&SimulatedPartition) -> usize| -> BTreeMap<i32, i64> {
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

    fn step(&mut self, step: &Action) {
        let mode = self.mode;
        match *step {
            Action::Write(partition, count) => {
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
            Action::Commit(partition, but) => {
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
            Action::Crash(partition) => {
                let state = self.state(partition);
                state.open = Written::default();
                state.next = match mode {
                    Mode::Table => state.stored,
                    _ => state.committed,
                };
            }
            Action::Zombie(partition, count) => {
                // It had read up to `next`, and cannot write what it had not read.
                let state = self.state(partition);
                let (committed, next) = (state.committed, state.next);
                let (_, written) = self.write(partition, committed, count.min(next - committed));
                if mode == Mode::Apart {
                    self.publish(written);
                }
            }
            Action::Look => self.look(),
        }
    }
}

/// The history of these steps, completed.
fn history(mode: Mode, records: usize, steps: &[Action]) -> History {
    let mut group = SimulatedGroup::new(mode, records);
    for step in steps {
        group.step(step);
    }
    for partition in 0..PARTITIONS {
        group.step(&Action::Write(partition, records));
        group.step(&Action::Commit(partition, 0));
        // The group's own offsets follow those of a table with one commit delay.
        group.step(&Action::Commit(partition, 0));
    }
    group.look();
    group.history
}

fn modes() -> impl Strategy<Value = Mode> {
    prop::sample::select(vec![Mode::Apart, Mode::Transactions, Mode::Table])
}

fn steps() -> impl Strategy<Value = Vec<Action>> {
    let partition = 0..PARTITIONS;
    let step = prop_oneof![
        4 => (partition.clone(), 1..12_usize).prop_map(|(partition, count)| Action::Write(partition, count)),
        3 => (partition.clone(), 0..6_usize).prop_map(|(partition, but)| Action::Commit(partition, but)),
        1 => partition.clone().prop_map(Action::Crash),
        1 => (partition, 1..9_usize).prop_map(|(partition, count)| Action::Zombie(partition, count)),
        2 => Just(Action::Look),
    ];
    prop::collection::vec(step, 0..60)
}

fn total(verdict: &Verdict) -> u64 {
    Kind::ALL.into_iter().map(|kind| verdict.count(kind)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Crashes and zombies only repeat records; with transactions not even that.
    #[test]
    fn the_checker_finds_no_fault_in_workers_that_do_everything_right(
        mode in modes(),
        records in 1..60_usize,
        steps in steps(),
    ) {
        let verdict = check(history(mode, records, &steps));
        let promise = Promise {
            stale_ends: false,
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
        let calm = steps.iter().all(|step| !matches!(step, Action::Crash(_) | Action::Zombie(..)));
        if calm {
            prop_assert_eq!((total(&verdict), verdict.aborted), (0, 0), "{}", verdict);
        }
    }

    /// One more fault is one more finding, of the right kind.
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
        Action::Write(0, 30),
        Action::Write(1, 30),
        Action::Look,
        Action::Commit(0, 0),
        Action::Commit(1, 0),
        Action::Look,
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

//! The comparison itself: one pass over each log, one over the samples. It visits every record of the input a
//! constant number of times, so that millions of records and thousands of samples take seconds.

use std::collections::{BTreeMap, HashMap};

use super::{Arrival, History, Kind, Place, Sample, Sent, Verdict, What};

/// What became of one record of the input.
#[derive(Clone, Copy, Default)]
struct Fate {
    /// Its first place in the output.
    output: Option<Place>,
    letter: Option<Place>,
}

/// The fates of all records, and the input they belong to.
struct Fates<'a> {
    inputs: &'a BTreeMap<i32, Vec<Sent>>,
    names: &'a BTreeMap<i32, String>,
    fates: BTreeMap<i32, Vec<Fate>>,
}

impl<'a> Fates<'a> {
    fn new(history: &'a History) -> Self {
        let History { inputs, names, .. } = history;
        let fates = inputs
            .iter()
            .map(|(partition, sent)| (*partition, vec![Fate::default(); sent.len()]))
            .collect();
        Self { inputs, names, fates }
    }

    fn find(&mut self, partition: i32, seq: u64) -> Option<(Sent, &mut Fate)> {
        let index = usize::try_from(seq).ok()?;
        let sent = self.inputs.get(&partition)?.get(index)?;
        Some((*sent, self.fates.get_mut(&partition)?.get_mut(index)?))
    }

    fn all(&self) -> impl Iterator<Item = (i32, u64, &Sent, &Fate)> {
        let partitions = self.inputs.iter().zip(self.fates.values());
        partitions.flat_map(|((partition, sent), fates)| {
            (0..)
                .zip(sent.iter().zip(fates))
                .map(|(seq, (sent, fate))| (*partition, seq, sent, fate))
        })
    }
}

/// A record in examples.
fn label(names: &BTreeMap<i32, String>, partition: i32, seq: u64) -> String {
    match names.get(&partition) {
        Some(name) => format!("{name}/{seq}"),
        None => format!("{partition}/{seq}"),
    }
}

/// Judges a history. The order of its logs does not matter; the order of its samples does.
pub fn check(mut history: History) -> Verdict {
    history.output.sort_unstable_by_key(|arrival| arrival.place);
    history.letters.sort_unstable_by_key(|arrival| arrival.place);
    let mut verdict = Verdict {
        expected: history.inputs.values().map(|sent| sent.len() as u64).sum(),
        arrived: history.output.len() as u64,
        letters: history.letters.len() as u64,
        aborted: history
            .uncommitted_total
            .saturating_sub(history.output.len() as u64),
        ..Verdict::default()
    };
    let mut fates = Fates::new(&history);
    arrivals(&history.output, &mut fates, &mut verdict);
    letters(&history.letters, &mut fates, &mut verdict);
    losses(&fates, &mut verdict);
    live(&history, &mut verdict);
    commits(&history.samples, &fates, &mut verdict);
    verdict
}

fn arrivals(output: &[Arrival], fates: &mut Fates<'_>, verdict: &mut Verdict) {
    let names = fates.names;
    // Highest sequence number so far, by key, and by input and output partition.
    let mut keys: HashMap<(i32, u32), u64> = HashMap::new();
    let mut lanes: HashMap<(i32, i32), u64> = HashMap::new();
    for arrival in output {
        let Some((partition, seq)) = identity(arrival, "output", verdict) else {
            continue;
        };
        let name = || {
            format!(
                "{} at {} of the output",
                label(names, partition, seq),
                at(arrival.place)
            )
        };
        let Some((sent, fate)) = fates.find(partition, seq) else {
            verdict.note(Kind::Unknown, 1, name);
            continue;
        };
        if sent.poison {
            verdict.note(Kind::Misplaced, 1, name);
            continue;
        }
        if fate.output.is_some() {
            verdict.note(Kind::Duplicated, 1, name);
            continue;
        }
        fate.output = Some(arrival.place);
        for (highest, kind) in [
            (
                keys.entry((partition, sent.key)).or_insert(seq),
                Kind::ReorderedPerKey,
            ),
            (
                lanes.entry((partition, arrival.place.partition)).or_insert(seq),
                Kind::ReorderedInPartition,
            ),
        ] {
            if *highest > seq {
                verdict.note(kind, 1, || format!("{} after {highest}", name()));
            }
            *highest = seq.max(*highest);
        }
    }
}

fn letters(letters: &[Arrival], fates: &mut Fates<'_>, verdict: &mut Verdict) {
    let names = fates.names;
    for arrival in letters {
        let Some((partition, seq)) = identity(arrival, "dead letters", verdict) else {
            continue;
        };
        let name = || {
            format!(
                "{} at {} of the dead letters",
                label(names, partition, seq),
                at(arrival.place)
            )
        };
        let Some((sent, fate)) = fates.find(partition, seq) else {
            verdict.note(Kind::Unknown, 1, name);
            continue;
        };
        if !sent.poison {
            verdict.note(Kind::Misplaced, 1, name);
        }
        match fate.letter {
            Some(_) => verdict.note(Kind::DeadLetterDuplicated, 1, name),
            None => fate.letter = Some(arrival.place),
        }
    }
}

fn identity(arrival: &Arrival, log: &str, verdict: &mut Verdict) -> Option<(i32, u64)> {
    let kind = match arrival.what {
        What::Record { partition, seq } => return Some((partition, seq)),
        What::Corrupted => Kind::Corrupted,
        What::Foreign => Kind::Unknown,
    };
    verdict.note(kind, 1, || format!("{} of the {log}", at(arrival.place)));
    None
}

fn losses(fates: &Fates<'_>, verdict: &mut Verdict) {
    for (partition, seq, sent, fate) in fates.all() {
        let kind = match (sent.poison, fate.output, fate.letter) {
            (true, _, None) => Kind::DeadLetterLost,
            (false, None, None) => Kind::Lost,
            _ => continue,
        };
        verdict.note(kind, 1, || label(fates.names, partition, seq));
    }
}

fn live(history: &History, verdict: &mut Verdict) {
    for place in &history.live {
        // check() has sorted it.
        let found = history
            .output
            .binary_search_by_key(place, |arrival| arrival.place);
        if found.is_err() {
            verdict.note(Kind::AbortedVisible, 1, || {
                format!("{} of the output", at(*place))
            });
        }
    }
}

/// Offsets of a sample, by partition.
type Positions = fn(&Sample) -> &BTreeMap<i32, i64>;

fn commits(samples: &[Sample], fates: &Fates<'_>, verdict: &mut Verdict) {
    let kinds: [(&str, Positions); 2] = [
        ("committed", |sample| &sample.committed),
        ("stored", |sample| &sample.stored),
    ];
    for ((partition, sent), fates) in fates.inputs.iter().zip(fates.fates.values()) {
        for (name, positions) in kinds {
            let track = Track {
                name,
                partition: *partition,
                positions: samples
                    .iter()
                    .map(|sample| positions(sample).get(partition).copied())
                    .collect(),
            };
            track.went_back(verdict);
            track.past_undone(samples, sent, fates, verdict);
        }
        // Not for stored offsets: they may stop while the only new records are dead letters.
        unfinished(*partition, sent, samples, verdict);
    }
}

/// An offset of a partition in all samples.
struct Track {
    name: &'static str,
    partition: i32,
    positions: Vec<Option<i64>>,
}

impl Track {
    fn went_back(&self, verdict: &mut Verdict) {
        let Track { name, partition, .. } = self;
        let mut highest: Option<i64> = None;
        for (number, position) in self.positions.iter().enumerate() {
            let Some(now) = *position else {
                // A group that had an offset and has none any more starts from the beginning again.
                if let Some(before) = highest.take() {
                    verdict.note(Kind::CommittedWentBack, 1, || {
                        format!("partition {partition}, {name} from {before} to nothing in sample {number}")
                    });
                }
                continue;
            };
            if let Some(before) = highest.filter(|before| *before > now) {
                verdict.note(Kind::CommittedWentBack, 1, || {
                    format!("partition {partition}, {name} from {before} to {now} in sample {number}")
                });
            }
            // From here on, so that one step back counts as one finding.
            highest = Some(now);
        }
    }

    fn past_undone(&self, samples: &[Sample], sent: &[Sent], fates: &[Fate], verdict: &mut Verdict) {
        let Track { name, partition, .. } = self;
        // An offset that was checked covers the records below this.
        let mut covered = 0;
        for (number, (sample, position)) in samples.iter().zip(&self.positions).enumerate() {
            let Some(now) = *position else { continue };
            while sent.get(covered).is_some_and(|record| record.offset < now) {
                let (record, fate) = (&sent[covered], &fates[covered]);
                if !done(record, fate, sample) {
                    verdict.note(Kind::CommittedPastUndone, 1, || {
                        format!("{partition}/{covered}, {name} is {now} in sample {number}")
                    });
                }
                covered += 1;
            }
        }
        let end = end(sent);
        let most = self.positions.iter().flatten().max();
        let beyond = most.map_or(0, |most| (most - end).max(0));
        verdict.note(Kind::CommittedPastUndone, beyond as u64, || {
            format!("partition {partition} ends at {end}, {name} was {}", end + beyond)
        });
    }
}

fn unfinished(partition: i32, sent: &[Sent], samples: &[Sample], verdict: &mut Verdict) {
    let Some(last) = samples.last() else { return };
    let committed = last.committed.get(&partition).copied();
    let rest = sent
        .iter()
        .rev()
        .take_while(|record| committed.is_none_or(|committed| record.offset >= committed))
        .count();
    verdict.note(Kind::Unfinished, rest as u64, || {
        format!(
            "partition {partition} ends at {}, committed is {committed:?}",
            end(sent)
        )
    });
}

/// The offset after the last record.
fn end(sent: &[Sent]) -> i64 {
    sent.last().map_or(0, |last| last.offset + 1)
}

/// Whether the record was in its place when the sample was taken.
fn done(record: &Sent, fate: &Fate, sample: &Sample) -> bool {
    let before = |place: Option<Place>, ends: &BTreeMap<i32, i64>| {
        place.is_some_and(|place| ends.get(&place.partition).is_some_and(|end| place.offset < *end))
    };
    // A healthy record in the dead letter topic is a separate finding, and finished.
    before(fate.letter, &sample.letter_ends) || (!record.poison && before(fate.output, &sample.output_ends))
}

fn at(place: Place) -> String {
    format!("{}@{}", place.partition, place.offset)
}

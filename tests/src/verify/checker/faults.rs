//! Faults to insert into a simulated history, at least one of each kind.

use proptest::prelude::prop;

use super::{simulation::PARTITIONS, *};

/// Inserts a fault into a history. Returns the kind that the checker must find, or None if the fault does not
/// fit in.
pub(super) type Fault = fn(&mut History, prop::sample::Index) -> Option<Kind>;

/// The first arrival of each record, by its place in the output.
fn firsts(history: &History) -> Vec<usize> {
    let mut seen = std::collections::HashSet::new();
    (0..history.output.len())
        .filter(|at| match history.output[*at].what {
            What::Record { partition, seq } => seen.insert((partition, seq)),
            _ => false,
        })
        .collect()
}

/// At least one of each kind.
pub(super) const FAULTS: [Fault; 15] = [
    |history, index| {
        // All copies of it.
        let what = history.output.get(index.index(history.output.len().max(1)))?.what;
        history.output.retain(|arrival| arrival.what != what);
        Some(Kind::Lost)
    },
    |history, index| {
        let arrival = *history.output.get(index.index(history.output.len().max(1)))?;
        history.output.push(at_the_end(&history.output, arrival));
        Some(Kind::Duplicated)
    },
    |history, index| {
        // Swaps two first arrivals of a key.
        let (first, second) = two_of_a_key(history, index)?;
        let what = history.output[first].what;
        history.output[first].what = history.output[second].what;
        history.output[second].what = what;
        Some(Kind::ReorderedPerKey)
    },
    |history, index| {
        let (first, second) = two_of_a_key(history, index)?;
        let what = history.output[first].what;
        history.output[first].what = history.output[second].what;
        history.output[second].what = what;
        Some(Kind::ReorderedInPartition)
    },
    |history, index| {
        let end = at_the_end(&history.output, *history.output.first()?);
        history.live.insert(index.index(history.live.len()), end.place);
        Some(Kind::AbortedVisible)
    },
    |history, index| too_early(history, index, |sample| &mut sample.committed),
    |history, index| too_early(history, index, |sample| &mut sample.stored),
    |history, index| {
        let at = index.index(history.output.len().max(1));
        history.output.get_mut(at)?.what = What::Corrupted;
        Some(Kind::Corrupted)
    },
    |history, index| {
        let at = index.index(history.output.len().max(1));
        history.output.get_mut(at)?.what = What::Record {
            partition: index.index(9) as i32 + PARTITIONS,
            seq: 0,
        };
        Some(Kind::Unknown)
    },
    |history, index| {
        let arrival = *history.output.get(index.index(history.output.len().max(1)))?;
        let end = Place {
            partition: 0,
            offset: history.letters.len() as i64,
        };
        history.letters.push(Arrival {
            place: end,
            ..arrival
        });
        Some(Kind::Misplaced)
    },
    |history, index| {
        let what = history
            .letters
            .get(index.index(history.letters.len().max(1)))?
            .what;
        history.letters.retain(|arrival| arrival.what != what);
        Some(Kind::DeadLetterLost)
    },
    |history, index| {
        let arrival = *history.letters.get(index.index(history.letters.len().max(1)))?;
        let end = Place {
            partition: 0,
            offset: history.letters.len() as i64,
        };
        history.letters.push(Arrival {
            place: end,
            ..arrival
        });
        Some(Kind::DeadLetterDuplicated)
    },
    |history, index| back(history, index, |sample| &mut sample.committed),
    |history, index| back(history, index, |sample| &mut sample.stored),
    |history, index| {
        let partition = index.index(PARTITIONS as usize) as i32;
        let last = history.samples.last_mut()?;
        *last.committed.get_mut(&partition)? -= 1;
        Some(Kind::Unfinished)
    },
];

/// The offsets of a sample that the fault changes.
type PositionsMut = fn(&mut Sample) -> &mut BTreeMap<i32, i64>;

/// An offset that is committed one sample too early, and one record too far.
fn too_early(history: &mut History, index: prop::sample::Index, positions: PositionsMut) -> Option<Kind> {
    let partition = index.index(PARTITIONS as usize) as i32;
    let at = index.index(history.samples.len());
    let now = *positions(&mut history.samples[at]).get(&partition)?;
    let sample = &history.samples[at];
    let next = history.inputs[&partition]
        .iter()
        .enumerate()
        .find(|(_, record)| record.offset >= now)?;
    let (seq, record) = (next.0 as u64, *next.1);
    let what = What::Record { partition, seq };
    let (log, ends) = if record.poison {
        (&history.letters, &sample.letter_ends)
    } else {
        (&history.output, &sample.output_ends)
    };
    let written = |arrival: &Arrival| {
        let end = ends.get(&arrival.place.partition);
        arrival.what == what && end.is_some_and(|end| arrival.place.offset < *end)
    };
    if log.iter().any(written) {
        return None;
    }
    for later in &mut history.samples[at..] {
        let position = positions(later).get_mut(&partition)?;
        *position = (*position).max(record.offset + 1);
    }
    Some(Kind::CommittedPastUndone)
}

fn back(history: &mut History, index: prop::sample::Index, positions: PositionsMut) -> Option<Kind> {
    let partition = index.index(PARTITIONS as usize) as i32;
    let at = 1 + index.index(history.samples.len() - 1);
    let before = *positions(&mut history.samples[at - 1]).get(&partition)?;
    *positions(&mut history.samples[at]).get_mut(&partition)? = (before > 0).then(|| before - 1)?;
    Some(Kind::CommittedWentBack)
}

fn two_of_a_key(history: &History, index: prop::sample::Index) -> Option<(usize, usize)> {
    let firsts = firsts(history);
    let first = *firsts.get(index.index(firsts.len().max(1)))?;
    let key = |at: usize| match history.output[at].what {
        What::Record { partition, seq } => {
            Some((partition, history.inputs.get(&partition)?.get(seq as usize)?.key))
        }
        _ => None,
    };
    let second = firsts
        .iter()
        .copied()
        .find(|at| *at > first && key(*at) == key(first))?;
    Some((first, second))
}

fn at_the_end(log: &[Arrival], arrival: Arrival) -> Arrival {
    let partition = arrival.place.partition;
    let offset = log
        .iter()
        .filter(|other| other.place.partition == partition)
        .map(|other| other.place.offset + 1)
        .max();
    Arrival {
        place: Place {
            partition,
            offset: offset.unwrap_or_default(),
        },
        ..arrival
    }
}

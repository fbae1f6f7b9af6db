//! The checker for tests that know keys and sequence numbers only: lost, duplicated, reordered, unknown. A
//! thin layer on [`checker`]: each key counts as a partition of the input. A replay after a crash repeats
//! records, but reorders none.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{
    checker::{self, Arrival, History, Place, Sent, Verdict, What},
    ledger::Ledger,
};
use crate::systems::kafka::Record;

/// Compares a ledger with arrivals: keys and sequence numbers, in the order of arrival for each key. Examples
/// in the verdict read "key/sequence at the number of the key @ the number of the arrival".
pub fn check(ledger: &Ledger, arrivals: impl IntoIterator<Item = (String, u64)>) -> Verdict {
    let sent = |offset: &i64| Sent {
        offset: *offset,
        key: 0,
        poison: false,
    };
    let inputs = (0..).zip(ledger.offsets.values());
    let mut numbers: BTreeMap<String, i32> = ledger.offsets.keys().cloned().zip(0..).collect();
    let output: Vec<Arrival> = (0..)
        .zip(arrivals)
        .map(|(offset, (key, seq))| {
            // A key that the ledger does not have gets a number that no input has.
            let next = numbers.len() as i32;
            let partition = *numbers.entry(key).or_insert(next);
            Arrival {
                place: Place { partition, offset },
                what: What::Record { partition, seq },
            }
        })
        .collect();
    checker::check(History {
        inputs: inputs
            .map(|(number, offsets)| (number, offsets.iter().map(sent).collect()))
            .collect(),
        names: numbers.into_iter().map(|(key, number)| (number, key)).collect(),
        uncommitted_total: output.len() as u64,
        output,
        ..History::default()
    })
}

/// Compares a ledger with the records of a topic; ignores records of other runs.
pub fn check_records(ledger: &Ledger, records: &[Record]) -> Result<Verdict> {
    let mut arrivals = Vec::with_capacity(records.len());
    for record in records {
        let value = record.json()?;
        if value["run"] == ledger.run.as_str() {
            let key = value["key"]
                .as_str()
                .with_context(|| format!("no key in {value}"))?;
            let sequence = value["sequence"]
                .as_u64()
                .with_context(|| format!("no sequence in {value}"))?;
            arrivals.push((key.to_string(), sequence));
        }
    }
    Ok(check(ledger, arrivals))
}

#[cfg(test)]
mod tests {
    use super::{super::checker::Kind, *};

    fn verdict(arrivals: &[(&str, u64)]) -> Verdict {
        let ledger = Ledger::counted("r", [("a".into(), 3), ("b".into(), 1)]);
        check(
            &ledger,
            arrivals
                .iter()
                .map(|(key, sequence)| (key.to_string(), *sequence)),
        )
    }

    fn examples(verdict: &Verdict, kind: Kind) -> Vec<&str> {
        let examples = verdict.findings[&kind].examples.iter();
        examples
            .map(|example| example.split(' ').next().unwrap())
            .collect()
    }

    #[test]
    fn a_replay_duplicates_records_and_reorders_none() {
        let verdict = verdict(&[("a", 0), ("a", 1), ("a", 0), ("a", 1), ("a", 2), ("b", 0)]);
        assert!(verdict.complete(), "{verdict}");
        assert_eq!(verdict.duplicates(), 2);
        assert_eq!((verdict.expected, verdict.arrived), (4, 6));
    }

    #[test]
    fn a_missing_record_is_lost_and_a_late_one_reordered() {
        let verdict = verdict(&[("a", 2), ("a", 0), ("b", 0), ("c", 0)]);
        assert_eq!(examples(&verdict, Kind::Lost), ["a/1"]);
        assert_eq!(examples(&verdict, Kind::ReorderedPerKey), ["a/0"]);
        assert_eq!(examples(&verdict, Kind::Unknown), ["c/0"]);
        assert!(!verdict.complete());
    }

    #[test]
    fn a_sequence_number_that_was_never_written_is_unknown() {
        let verdict = verdict(&[("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 0)]);
        assert_eq!(examples(&verdict, Kind::Unknown), ["a/3"]);
        assert!(!verdict.complete());
    }
}

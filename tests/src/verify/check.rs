//! The ledger against what arrived. Pure. Lost: acknowledged, but never arrived. Duplicate: arrived again. Reordered: of
//! two records of a key, the later one arrived first for the first time. A replay after a crash repeats, but never
//! reorders.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result};

use crate::{systems::kafka::Record, verify::load::Ledger};

/// What became of the records of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub expected: u64,
    pub arrived: u64,
    pub duplicates: u64,
    /// "key/sequence" of each, the first ones only when there are many.
    pub lost: Vec<String>,
    pub lost_total: u64,
    pub repeated: Vec<String>,
    pub reordered: Vec<String>,
    /// Records of the run that the ledger does not know.
    pub unknown: Vec<String>,
}

/// Examples kept of each kind of fault.
const EXAMPLES: usize = 10;

/// Compares; `arrivals` are keys and sequence numbers in the order in which they arrived per key.
pub fn check(ledger: &Ledger, arrivals: impl IntoIterator<Item = (String, u64)>) -> Verdict {
    let mut verdict = Verdict {
        expected: ledger.total(),
        ..Verdict::default()
    };
    let mut seen: BTreeMap<&str, (Vec<bool>, Option<u64>)> = ledger
        .keys
        .iter()
        .map(|(key, count)| (key.as_str(), (vec![false; *count as usize], None)))
        .collect();
    for (key, sequence) in arrivals {
        verdict.arrived += 1;
        let known = seen
            .get_mut(key.as_str())
            .and_then(|(marks, highest)| Some((marks.get_mut(sequence as usize)?, highest)));
        let Some((mark, highest)) = known else {
            note(&mut verdict.unknown, &key, sequence);
            continue;
        };
        if *mark {
            verdict.duplicates += 1;
            note(&mut verdict.repeated, &key, sequence);
            continue;
        }
        *mark = true;
        if highest.is_some_and(|highest| highest > sequence) {
            note(&mut verdict.reordered, &key, sequence);
        }
        *highest = (*highest).max(Some(sequence));
    }
    for (key, (marks, _)) in &seen {
        for (sequence, _) in marks.iter().enumerate().filter(|(_, mark)| !**mark) {
            verdict.lost_total += 1;
            note(&mut verdict.lost, key, sequence as u64);
        }
    }
    verdict
}

/// Compares with the records of a topic, of which other runs are left out.
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

fn note(examples: &mut Vec<String>, key: &str, sequence: u64) {
    if examples.len() < EXAMPLES {
        examples.push(format!("{key}/{sequence}"));
    }
}

impl Verdict {
    /// Everything arrived, in order, and nothing that was not written.
    pub fn complete(&self) -> bool {
        self.lost_total == 0 && self.reordered.is_empty() && self.unknown.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} written, {} arrived, {} lost, {} duplicates",
            self.expected, self.arrived, self.lost_total, self.duplicates
        )?;
        for (what, examples) in [
            ("lost", &self.lost),
            ("repeated", &self.repeated),
            ("reordered", &self.reordered),
            ("unknown", &self.unknown),
        ] {
            if !examples.is_empty() {
                write!(f, ", {what}: {}", examples.join(" "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(arrivals: &[(&str, u64)]) -> Verdict {
        let ledger = Ledger {
            run: "r".into(),
            keys: [("a".into(), 3), ("b".into(), 1)].into(),
        };
        check(
            &ledger,
            arrivals
                .iter()
                .map(|(key, sequence)| (key.to_string(), *sequence)),
        )
    }

    #[test]
    fn a_replay_is_duplicates_and_not_a_reordering() {
        let verdict = verdict(&[("a", 0), ("a", 1), ("a", 0), ("a", 1), ("a", 2), ("b", 0)]);
        assert!(verdict.complete(), "{verdict}");
        assert_eq!(verdict.duplicates, 2);
    }

    #[test]
    fn a_missing_record_is_lost_and_a_late_one_reordered() {
        let verdict = verdict(&[("a", 2), ("a", 0), ("b", 0), ("c", 0)]);
        assert_eq!(verdict.lost, ["a/1"]);
        assert_eq!(verdict.reordered, ["a/0"]);
        assert_eq!(verdict.unknown, ["c/0"]);
        assert!(!verdict.complete());
    }
}

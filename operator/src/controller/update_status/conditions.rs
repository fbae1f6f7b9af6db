//! Conditions according to the Kubernetes API conventions. In: the old conditions, and what holds now. Out:
//! the merged list; a condition keeps its transition time while its status stays the same. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// True, False or Unknown, as in metav1.Condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What holds now for one condition type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub truth: Truth,
    pub reason: String,
    pub message: String,
}

impl Verdict {
    pub fn new(truth: Truth, reason: &str, message: impl Into<String>) -> Self {
        Self {
            truth,
            reason: reason.into(),
            message: message.into(),
        }
    }

    pub fn is_true(&self) -> bool {
        self.truth == Truth::True
    }
}

/// Maximum number of bytes of a message; metav1.Condition allows 32768, but people read the status.
const MAX_MESSAGE: usize = 2048;

/// The condition of one type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of one type is True.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// The reason of the condition of one type.
pub fn reason<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a str> {
    find(conditions, kind).map(|condition| condition.reason.as_str())
}

/// A condition as it was.
pub fn kept(conditions: &[Condition], kind: &str) -> Option<Verdict> {
    let old = find(conditions, kind)?;
    let truth = match old.status.as_str() {
        "True" => Truth::True,
        "False" => Truth::False,
        _ => Truth::Unknown,
    };
    Some(Verdict::new(truth, &old.reason, old.message.clone()))
}

/// Replaces the conditions with the verdicts, in their order.
pub fn merge(
    old: &[Condition],
    verdicts: Vec<(&'static str, Verdict)>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|(kind, verdict)| {
            let status = verdict.truth.as_str();
            let since = find(old, kind)
                .filter(|before| before.status == status)
                .map_or(Time(now), |before| before.last_transition_time.clone());
            Condition {
                type_: kind.into(),
                status: status.into(),
                reason: verdict.reason,
                message: cut(verdict.message),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// An error message without the parts that differ at each attempt: "(after 4051ms in state AUTH_REQ)" and the
/// ports of connections. Otherwise each attempt would cause a status write.
pub fn without_volatile_parts(message: &str) -> String {
    let mut kept = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(start) = rest.find(" (after ") {
        let Some(length) = closing(&rest[start..]) else {
            break;
        };
        kept.push_str(&rest[..start]);
        rest = &rest[start + length..];
    }
    kept.push_str(rest);
    let words = kept
        .split(' ')
        .filter(|word| !(word.contains("->") && word.contains(':')));
    words.collect::<Vec<_>>().join(" ")
}

/// Length up to and including the parenthesis that closes the first one.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(index + 1),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn cut(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE)
            .rev()
            .find(|at| message.is_char_boundary(*at))
            .unwrap_or(0);
        message.truncate(end);
        message.push_str(" ...");
    }
    message
}

/// The time in whole seconds, as it is stored: a finer one would differ from the stored one.
pub fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let verdict = |truth, reason| vec![("Ready", Verdict::new(truth, reason, ""))];
        let first = merge(&[], verdict(Truth::False, "Starting"), Some(1), at(1));
        let second = merge(&first, verdict(Truth::False, "Waiting"), Some(2), at(2));
        assert_eq!(second[0].last_transition_time, Time(at(1)));
        assert_eq!(
            (second[0].reason.as_str(), second[0].observed_generation),
            ("Waiting", Some(2))
        );
        let third = merge(&second, verdict(Truth::True, "Fine"), Some(2), at(3));
        assert_eq!(third[0].last_transition_time, Time(at(3)));
    }

    #[test]
    fn volatile_parts_are_removed() {
        let message =
            "login refused (after 4051ms in state AUTH_REQ); correct (after 0ms, 1 identical error(s)) it";
        assert_eq!(without_volatile_parts(message), "login refused; correct it");
        assert_eq!(
            without_volatile_parts("read udp 10.0.0.1:41770->10.0.0.2:53: timeout"),
            "read udp timeout"
        );
        assert_eq!(
            without_volatile_parts("partitions: 6 -> 9 (after all)"),
            "partitions: 6 -> 9"
        );
        assert_eq!(without_volatile_parts("open (after"), "open (after");
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let long = "ä".repeat(MAX_MESSAGE);
        let conditions = merge(
            &[],
            vec![("Ready", Verdict::new(Truth::True, "Fine", long))],
            None,
            at(1),
        );
        assert!(conditions[0].message.len() <= MAX_MESSAGE + 4);
    }
}

//! One run of a worker process, as Kafka sees it: the `client.id` of its consumer. A restarted worker keeps
//! its name and gets a new start time, so the operator can tell the member of a dead process from the member
//! of the process that replaced it. Pure: the caller reads the clock.

use std::fmt;

/// Separates name and start time. Names of pods and groups never contain it, so users see at once where the
/// name ends; a name that does contain it is still read correctly, because the last one counts.
const SEPARATOR: char = '@';

/// One run of a worker process. Displayed as the `client.id` of its consumer, for example
/// `orders-worker-5f7c-x2x9k@1764470000123`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation {
    /// Name of the worker: the pod in Kubernetes.
    pub worker: String,
    /// Start of the process in Unix milliseconds, by the clock of its machine.
    pub started: i64,
}

impl Incarnation {
    /// None: this is not the `client.id` of a worker, but of another program, or one that a user has set.
    pub fn parse(client_id: &str) -> Option<Self> {
        let (worker, started) = client_id.rsplit_once(SEPARATOR)?;
        let started = started.parse().ok()?;
        let incarnation = Self {
            worker: worker.into(),
            started,
        };
        // Only what a worker writes: the same time has other spellings, such as "+7" or "007".
        (!worker.is_empty() && incarnation.to_string() == client_id).then_some(incarnation)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{SEPARATOR}{}", self.worker, self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(worker: &str, started: i64) -> Incarnation {
        Incarnation {
            worker: worker.into(),
            started,
        }
    }

    #[test]
    fn every_name_and_time_is_read_back() {
        let pieces = ["orders", "-", "@", "5", "é", ".", "@7", " ", "-1"];
        let times = [0, 1, 7, 1_764_470_000_123, i64::MAX, -1, i64::MIN];
        let names = pieces.iter().flat_map(|first| {
            let more = pieces.iter().map(move |second| format!("{first}{second}"));
            std::iter::once((*first).to_string()).chain(more)
        });
        for name in names {
            for started in times {
                let written = incarnation(&name, started);
                assert_eq!(Incarnation::parse(&written.to_string()), Some(written));
            }
        }
    }

    #[test]
    fn a_client_id_of_another_program_is_none() {
        let others = [
            "",
            "rdkafka",
            "orders-5f7c",
            "@",
            "@1764470000123",
            "orders@",
            "orders@now",
            "orders@+7",
            "orders@007",
            "orders@-0",
            "orders@ 7",
            "orders@7 ",
            "orders@9223372036854775808",
            "orders@1764470000123@worker",
        ];
        for other in others {
            assert_eq!(Incarnation::parse(other), None, "{other}");
        }
        assert_eq!(
            Incarnation::parse("orders-worker-5f7c-x2x9k@1764470000123"),
            Some(incarnation("orders-worker-5f7c-x2x9k", 1_764_470_000_123))
        );
    }
}

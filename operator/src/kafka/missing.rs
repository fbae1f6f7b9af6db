//! Why something could not be read, and how long it is asked for again while leaders and coordinators
//! move.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::frames::CallError;
use super::model::KafkaProblem;
use super::protocol::error_code::ErrorCode;

/// While leaders or coordinators move, questions are repeated for this long; then the fact is unknown until
/// the next refresh.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const FIRST_WAIT: Duration = Duration::from_millis(100);

const NOT_ANSWERED: &str = "the broker has not answered";

/// Why a fact could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Permanently; shown to the user.
    Refused(KafkaProblem),
    /// The broker that has it cannot be reached.
    Unreachable(String),
    /// This time, for example during an election.
    Unknown(String),
    /// While a transaction is open.
    Unstable(String),
}

impl Missing {
    /// What a broker's error code about `what` means.
    pub(super) fn of_code(code: ErrorCode, what: &str) -> Self {
        let message = format!("{what}: {code}");
        match code {
            ErrorCode::TOPIC_AUTHORIZATION_FAILED
            | ErrorCode::GROUP_AUTHORIZATION_FAILED
            | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
                Self::Refused(KafkaProblem::AuthorizationFailed(message))
            }
            ErrorCode::UNSTABLE_OFFSET_COMMIT => Self::Unstable(message),
            _ => Self::Unknown(message),
        }
    }

    pub(super) fn of_call(error: CallError) -> Self {
        match error {
            CallError::LoginRefused(message) => Self::Refused(KafkaProblem::AuthenticationFailed(message)),
            CallError::Unreachable(message) => Self::Unreachable(message),
            CallError::Unsupported(_) => Self::Unknown(error.to_string()),
        }
    }

    /// For a caller that cannot continue without the fact.
    pub(super) fn problem(self) -> KafkaProblem {
        match self {
            Self::Refused(problem) => problem,
            Self::Unreachable(message) | Self::Unknown(message) => KafkaProblem::Unreachable(message),
            Self::Unstable(message) => KafkaProblem::TransactionOpen(message),
        }
    }

    /// The reason without advice.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Refused(problem) => problem.to_string(),
            Self::Unreachable(message) | Self::Unknown(message) | Self::Unstable(message) => message.clone(),
        }
    }

    fn may_pass(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// Answers by what was asked for.
pub(super) type Answers<K, T> = HashMap<K, Result<T, Missing>>;

/// The same reason for everything that was asked for.
pub(super) fn all_missing<K, T>(
    keys: impl IntoIterator<Item = K>,
    missing: &Missing,
) -> Vec<(K, Result<T, Missing>)> {
    keys.into_iter().map(|key| (key, Err(missing.clone()))).collect()
}

/// One of the answers; unknown if it was not asked for.
pub(super) fn answer_of<K, Q, T>(answers: &Answers<K, T>, key: &Q) -> Result<T, Missing>
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
    T: Clone,
{
    let unknown = || Err(Missing::Unknown(NOT_ANSWERED.into()));
    answers.get(key).cloned().unwrap_or_else(unknown)
}

/// Asks in rounds: all at first, then again for what is missing for a reason that may pass. What is never
/// answered is unknown.
///
/// ```text
/// let mut rounds = Rounds::new(keys);
/// while let Some(keys) = rounds.next().await {
///     rounds.take(ask(keys).await);
/// }
/// rounds.answers
/// ```
pub(super) struct Rounds<K, T> {
    pub(super) answers: Answers<K, T>,
    started: Instant,
    wait: Option<Duration>,
}

impl<K: Clone + Eq + Hash, T> Rounds<K, T> {
    pub(super) fn new(wanted: Vec<K>) -> Self {
        let unknown = |key| (key, Err(Missing::Unknown(NOT_ANSWERED.into())));
        Self {
            answers: wanted.into_iter().map(unknown).collect(),
            started: Instant::now(),
            wait: None,
        }
    }

    /// What to ask for; None: nothing more.
    pub(super) async fn next(&mut self) -> Option<Vec<K>> {
        let pending = |(key, answer): (&K, &Result<T, Missing>)| {
            let may_pass = answer.as_ref().err().is_some_and(Missing::may_pass);
            may_pass.then(|| key.clone())
        };
        let keys: Vec<K> = self.answers.iter().filter_map(pending).collect();
        if keys.is_empty() {
            return None;
        }
        if let Some(wait) = self.wait {
            if self.started.elapsed() + wait > ASK_AGAIN {
                return None;
            }
            tokio::time::sleep(wait).await;
        }
        self.wait = Some(self.wait.map_or(FIRST_WAIT, |wait| wait * 2));
        Some(keys)
    }

    /// True if something is asked for the second time.
    pub(super) fn is_repeated(&self) -> bool {
        self.wait.is_some_and(|wait| wait > FIRST_WAIT)
    }

    pub(super) fn take(&mut self, answers: impl IntoIterator<Item = (K, Result<T, Missing>)>) {
        self.answers.extend(answers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_may_pass_is_asked_again_and_not_indefinitely() {
        let mut asked: Vec<Vec<&str>> = Vec::new();
        let mut rounds = Rounds::new(vec!["good", "denied", "moved"]);
        while let Some(mut keys) = rounds.next().await {
            keys.sort_unstable();
            assert_eq!(rounds.is_repeated(), !asked.is_empty());
            asked.push(keys.clone());
            rounds.take(keys.into_iter().map(|key| match key {
                "good" => (key, Ok(1)),
                "denied" => {
                    let denied = ErrorCode::GROUP_AUTHORIZATION_FAILED;
                    (key, Err(Missing::of_code(denied, "group")))
                }
                // NOT_COORDINATOR
                _ => (key, Err(Missing::of_code(ErrorCode(16), "group"))),
            }));
        }
        let answers = rounds.answers;
        assert_eq!(answers["good"], Ok(1));
        assert!(matches!(answers["denied"], Err(Missing::Refused(_))));
        assert_eq!(
            answers["moved"],
            Err(Missing::Unknown("group: NOT_COORDINATOR".into()))
        );
        assert_eq!(asked[0], ["denied", "good", "moved"]);
        assert!(asked[1..].iter().all(|keys| keys == &["moved"]));
        assert!((3..8).contains(&asked.len()), "{}", asked.len());
    }

    #[tokio::test]
    async fn what_is_not_answered_is_unknown() {
        let mut rounds: Rounds<&str, i32> = Rounds::new(vec!["a"]);
        while rounds.next().await.is_some() {}
        assert!(matches!(rounds.answers["a"], Err(Missing::Unknown(_))));
    }
}

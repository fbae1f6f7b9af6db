//! Bugs on purpose, to test the tests: with the feature `seeded_bug-bugs`, never in a released image, the environment variable
//! KCG_SEEDED_BUG names one of [`BUGS`], and the places that ask [`seeded_bug`] for it do the wrong thing. Without the feature
//! the answer is a constant, and nothing of this is in the program. A name that is not there ends the process, because a test
//! with it would prove nothing.

/// What can be asked for. `tests/src/chaos/seeded_bug.rs` says what each must be blamed for.
#[cfg(any(test, feature = "seeded-bugs"))]
pub(crate) const BUGS: &[&str] = &[
    "abort-is-committed",
    "at-most-once-commits-later",
    "commit-before-write",
    "commit-goes-back",
    "commit-maximum",
    "commit-nothing",
    "commit-offset-plus-one",
    "corrupt-value",
    "dead-letter-not-awaited",
    "dead-letter-outside-transaction",
    "dead-letter-twice",
    "dead-letter-without-headers",
    "drop-dead-letter",
    "duplicate-write",
    "ends-before-its-lanes",
    "failed-records-finished",
    "finished-ahead-invented",
    "ignore-writer-error",
    "key-order-by-chance",
    "latest-on-new-partitions",
    "lose-last-batch-on-shutdown",
    "no-drain-on-revoke",
    "no-rewind-after-abort",
    "offsets-outside-transaction",
    "partition-order-by-key",
    "postgres-ignores-finished",
    "postgres-offsets-outside-transaction",
    "reorder-within-batch",
    "skip-first-record-after-assign",
    "swap-keys",
    "timestamp-of-now",
    "write-not-awaited",
    "wrong-key",
];

/// Whether this bug was asked for.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub(crate) const fn seeded_bug(_: &str) -> bool {
    false
}

/// Whether this bug was asked for.
#[cfg(feature = "seeded-bugs")]
pub(crate) fn seeded_bug(name: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    debug_assert!(BUGS.contains(&name), "{name} is missing in the list");
    let chosen = CHOSEN.get_or_init(|| {
        let chosen = std::env::var("KCG_SEEDED_BUG")
            .ok()
            .filter(|chosen| !chosen.is_empty());
        if let Some(unknown) = chosen.as_deref().filter(|chosen| !BUGS.contains(chosen)) {
            tracing::error!("KCG_SEEDED_BUG is {unknown}; there are: {}", BUGS.join(", "));
            std::process::exit(crate::exit::CONFIG.into());
        }
        if let Some(chosen) = &chosen {
            tracing::warn!("this worker has the bug {chosen} on purpose");
        }
        chosen
    });
    chosen.as_deref() == Some(name)
}

/// The answer to a write that nobody waits for: after a moment it is taken for granted.
pub(crate) async fn impatient<T>(write: impl Future<Output = T>, granted: impl FnOnce() -> T) -> T {
    tokio::time::timeout(std::time::Duration::from_millis(10), write)
        .await
        .unwrap_or_else(|_| granted())
}

/// True every `every`-th time it is asked: bugs that strike now and then.
pub(crate) fn now_and_then(every: u64) -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};
    static ASKED: AtomicU64 = AtomicU64::new(1);
    ASKED.fetch_add(1, Ordering::Relaxed).is_multiple_of(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_nothing_is_planted_unasked() {
        assert!(BUGS.is_sorted());
        assert!(BUGS.iter().all(|bug| !seeded_bug(bug)));
    }
}

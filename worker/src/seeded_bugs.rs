//! Seeded bugs, to test the tests. With the feature `seeded-bugs`, which released images never have, the
//! environment variable KCG_SEEDED_BUG names one of [`BUGS`], and the code that asks [`seeded_bug`] for it
//! does the wrong thing. Without the feature the answer is a constant, and the compiler removes the bugs. An
//! unknown name ends the process, because a test with it would prove nothing.

/// The names. `tests/src/chaos/seeded_bugs.rs` lists which violation the checker must report for each.
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
    "ignore-writer-error",
    "key-order-by-chance",
    "latest-on-new-partitions",
    "lose-last-batch-on-shutdown",
    "no-drain-on-revoke",
    "no-rewind-after-abort",
    "offsets-outside-transaction",
    "out-of-order-completions-invented",
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

/// Whether this bug is active.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub(crate) const fn seeded_bug(_: &str) -> bool {
    false
}

/// Whether this bug is active.
#[cfg(feature = "seeded-bugs")]
pub(crate) fn seeded_bug(name: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    debug_assert!(BUGS.contains(&name), "{name} is missing from BUGS");
    let chosen = CHOSEN.get_or_init(|| {
        let chosen = std::env::var("KCG_SEEDED_BUG")
            .ok()
            .filter(|chosen| !chosen.is_empty());
        if let Some(unknown) = chosen.as_deref().filter(|chosen| !BUGS.contains(chosen)) {
            tracing::error!(
                "KCG_SEEDED_BUG={unknown} is unknown; set one of: {}",
                BUGS.join(", ")
            );
            std::process::exit(crate::exit::CONFIG.into());
        }
        if let Some(chosen) = &chosen {
            tracing::warn!("this worker runs with the seeded bug {chosen}");
        }
        chosen
    });
    chosen.as_deref() == Some(name)
}

/// The answer to a write that is not awaited: after 10 ms it is taken for granted.
pub(crate) async fn impatient<T>(write: impl Future<Output = T>, granted: impl FnOnce() -> T) -> T {
    tokio::time::timeout(std::time::Duration::from_millis(10), write)
        .await
        .unwrap_or_else(|_| granted())
}

/// True on every `every`-th call: for bugs that occur now and then.
pub(crate) fn now_and_then(every: u64) -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};
    static ASKED: AtomicU64 = AtomicU64::new(1);
    ASKED.fetch_add(1, Ordering::Relaxed).is_multiple_of(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_no_bug_is_active_by_default() {
        assert!(BUGS.is_sorted());
        assert!(BUGS.iter().all(|bug| !seeded_bug(bug)));
    }
}

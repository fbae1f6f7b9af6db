//! Exactly once with the Kafka writer: what the lanes of a worker write, its dead letters and its offsets go into one
//! transaction after the other. Lanes write inside of the [`Gate`]; to end a transaction the gate is closed, which waits for
//! those inside, so that at that moment what is finished is exactly what was written. Then it opens for the next transaction,
//! while the one before is being committed. The poll loop decides when (`consumer/transact.rs`); the [`Transactor`] makes the
//! calls, on threads that may block.
//!
//! Nothing that was written can be taken back alone: a record that is not confirmed spoils the transaction. Then it is
//! aborted, and the partitions are read again from what is committed.

mod client;
mod refusals;
mod transactor;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{Semaphore, SemaphorePermit};

pub use self::refusals::Refusals;
pub(crate) use self::transactor::{Command, Transactor};
use crate::snapshot::PausedReason;

/// Where lanes may be while they write. Closed at first.
#[derive(Debug)]
pub(crate) struct Gate {
    permits: Semaphore,
    round: AtomicU64,
}

/// More than there can be lanes: concurrency is 1024 at most, for each partition.
const EVERYBODY: u32 = 1 << 24;

/// A lane is inside while this lives.
pub(crate) type Inside<'a> = SemaphorePermit<'a>;

impl Gate {
    pub fn closed() -> Arc<Self> {
        Arc::new(Self {
            permits: Semaphore::new(0),
            round: AtomicU64::new(0),
        })
    }

    /// Waits until the gate is open, and keeps it from being closed. None for those who began in an earlier round.
    pub async fn enter(&self, round: u64) -> Option<Inside<'_>> {
        // The semaphore itself is never closed.
        let inside = self.permits.acquire().await.ok();
        inside.filter(|_| self.round() == round)
    }

    /// What is begun now belongs to this round.
    pub fn round(&self) -> u64 {
        self.round.load(Ordering::SeqCst)
    }

    /// Everything is begun anew, because a transaction was aborted: who has begun before must not write any more. Only of a
    /// closed gate. (Tasks are ended as well, but that takes effect at some time later.)
    pub fn next_round(&self) {
        self.round.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets nobody in any more and waits for those inside. Only of an open gate.
    pub async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(EVERYBODY).await {
            all.forget();
        }
    }

    /// Only of a closed gate.
    pub fn open(&self) {
        self.permits.add_permits(EVERYBODY as usize);
    }
}

/// What became of the transaction.
#[derive(Debug)]
pub(crate) enum Event {
    /// The gate is closed and nobody is inside.
    Quiet,
    /// The one before that which is written to now is committed.
    Committed,
    /// It cannot be committed any more. From a lane, or from the commit.
    Spoiled(Spoiled),
    /// Aborted, with the one that was being committed, if it could not be, and the next one has begun; the gate is closed.
    Aborted,
    /// There cannot be a transaction for now; it is tried again.
    Trouble(String),
    /// There can, again.
    Recovered,
}

/// Why a transaction cannot be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spoiled {
    pub message: String,
    pub cause: Cause,
    /// What status shows while it goes on.
    pub reason: PausedReason,
}

/// What is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Partitions have moved to another worker: nobody's fault.
    Moved,
    /// The broker has refused a record: known by now, or found out before the next transaction.
    Record,
    /// Writing does not work for now.
    Unavailable,
    /// Writing does not work until somebody mends something.
    Systemic,
}

impl Spoiled {
    /// By the writer, or by a call.
    pub fn new(cause: Cause, message: String) -> Self {
        Self {
            message,
            cause,
            reason: PausedReason::WriterUnavailable,
        }
    }
}

impl Cause {
    /// As a metric label: that of the writer's failure.
    pub fn class(self) -> &'static str {
        match self {
            Cause::Record => "record",
            Cause::Systemic => "systemic",
            Cause::Moved | Cause::Unavailable => "transient",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets the others go on as far as they can.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_closed_gate_is_empty_and_lets_nobody_in_until_it_opens() {
        let gate = Gate::closed();
        let enter = |gate: Arc<Gate>| tokio::spawn(async move { gate.enter(0).await.is_some() });
        let close = |gate: Arc<Gate>| tokio::spawn(async move { gate.close().await });
        let early = enter(gate.clone());
        settle().await;
        assert!(!early.is_finished());
        gate.open();
        assert!(early.await.unwrap());

        let inside = gate.enter(0).await;
        let closing = close(gate.clone());
        settle().await;
        let late = enter(gate.clone());
        settle().await;
        assert!(!closing.is_finished(), "somebody is inside");
        drop(inside);
        closing.await.unwrap();
        settle().await;
        assert!(
            !late.is_finished(),
            "who comes while it is being closed waits until it opens"
        );
        gate.next_round();
        gate.open();
        assert!(!late.await.unwrap(), "it belongs to what was aborted");
        assert!(gate.enter(gate.round()).await.is_some());
    }
}

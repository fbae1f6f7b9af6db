//! Where lanes are while they write, and in which transaction they write.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::sync;
use tokio::sync::Notify;

/// The gate that lanes enter to write. It starts closed.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    round: u64,
    /// Number of the transaction that lanes enter now.
    current: u64,
    /// Number of lanes inside, by transaction: the current one, and the one before or after it.
    inside: [usize; 2],
}

/// A lane is inside until this is dropped.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    gate: &'a Gate,
    /// The transaction that the lane writes in.
    pub transaction: u64,
}

impl Gate {
    pub fn closed() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        sync::lock(&self.state)
    }

    /// Waits until `look` finds something, and returns it.
    async fn wait_for<T>(&self, look: impl Fn(&mut GateState) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.state()) {
                return found;
            }
            changed.await;
        }
    }

    /// Waits until the gate is open. Returns `None` if `round` is an earlier round.
    pub async fn enter(&self, round: u64) -> Option<Inside<'_>> {
        let entered = self.wait_for(|state| {
            if state.round != round {
                return Some(None);
            }
            state.open.then(|| {
                state.inside[slot(state.current)] += 1;
                Some(state.current)
            })
        });
        entered.await.map(|transaction| Inside {
            gate: self,
            transaction,
        })
    }

    /// Work that starts now belongs to this round.
    pub fn round(&self) -> u64 {
        self.state().round
    }

    /// Starts a new round after a transaction was aborted: lanes of the earlier round must not write any
    /// more. The gate must be closed. (Their tasks are stopped as well, but that takes effect some time
    /// later.)
    pub fn next_round(&self) {
        self.state().round += 1;
        self.changed.notify_waiters();
    }

    /// Number of the transaction that lanes enter now.
    pub fn current(&self) -> u64 {
        self.state().current
    }

    /// From now on, lanes enter the next transaction, which must be empty. Returns the number of the ended
    /// one.
    pub fn turn_over(&self) -> u64 {
        let mut state = self.state();
        state.current += 1;
        state.current - 1
    }

    /// Waits until no lane writes in this ended transaction.
    pub async fn left(&self, ended: u64) {
        self.wait_for(|state| (state.inside[slot(ended)] == 0).then_some(()))
            .await;
    }

    /// Closes the gate and waits until all lanes have left.
    pub async fn close(&self) {
        self.state().open = false;
        self.wait_for(|state| (state.inside == [0, 0]).then_some(()))
            .await;
    }

    pub fn open(&self) {
        self.state().open = true;
        self.changed.notify_waiters();
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let inside = &mut self.gate.state().inside[slot(self.transaction)];
        *inside -= 1;
        if *inside == 0 {
            self.gate.changed.notify_waiters();
        }
    }
}

fn slot(transaction: u64) -> usize {
    (transaction % 2) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the other tasks as far as they get.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// Enters in a task; returns the number of the transaction.
    fn enter(gate: &Arc<Gate>, round: u64) -> tokio::task::JoinHandle<Option<u64>> {
        let gate = gate.clone();
        tokio::spawn(async move { gate.enter(round).await.map(|inside| inside.transaction) })
    }

    #[tokio::test]
    async fn a_closed_gate_is_empty_and_admits_no_lane_until_it_opens() {
        let gate = Gate::closed();
        let early = enter(&gate, 0);
        settle().await;
        assert!(!early.is_finished());
        gate.open();
        assert_eq!(early.await.unwrap(), Some(0));

        let inside = gate.enter(0).await;
        let closing = tokio::spawn({
            let gate = gate.clone();
            async move { gate.close().await }
        });
        settle().await;
        let late = enter(&gate, 0);
        settle().await;
        assert!(!closing.is_finished(), "a lane is inside");
        drop(inside);
        closing.await.unwrap();
        settle().await;
        assert!(
            !late.is_finished(),
            "a lane that arrives while the gate closes waits until it opens"
        );
        gate.next_round();
        gate.open();
        assert_eq!(late.await.unwrap(), None, "its round was aborted");
        assert!(gate.enter(gate.round()).await.is_some());
    }

    #[tokio::test]
    async fn a_transaction_ends_when_its_lanes_have_left_and_others_continue_in_the_next() {
        let gate = Gate::closed();
        gate.open();
        let (first, second) = (gate.enter(0).await, gate.enter(0).await);
        assert_eq!(gate.turn_over(), 0);
        let left = tokio::spawn({
            let gate = gate.clone();
            async move { gate.left(0).await }
        });
        let next = gate.enter(0).await.unwrap();
        assert_eq!((next.transaction, gate.current()), (1, 1));
        drop(first);
        settle().await;
        assert!(!left.is_finished(), "one is still inside");
        drop(second);
        left.await.unwrap();

        drop(next);
        gate.left(gate.turn_over()).await;
        assert_eq!(gate.enter(0).await.unwrap().transaction, 2);
    }
}

//! Where lanes are while they write, and of which transaction that is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Closed at first.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    round: u64,
    /// Number of the transaction of those who enter.
    current: u64,
    /// Lanes inside, by transaction: the current one, and the one before it or after it.
    inside: [usize; 2],
}

/// A lane is inside while this lives.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    gate: &'a Gate,
    /// What is written belongs to this one.
    pub transaction: u64,
}

impl Gate {
    pub fn closed() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what `look` finds, as soon as it finds something.
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

    /// Waits until the gate is open. None for those who began in an earlier round.
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

    /// What is begun now belongs to this round.
    pub fn round(&self) -> u64 {
        self.state().round
    }

    /// Everything is begun anew, because a transaction was aborted: who has begun before must not write any more. Only of a
    /// closed gate. (Tasks are ended as well, but that takes effect at some time later.)
    pub fn next_round(&self) {
        self.state().round += 1;
        self.changed.notify_waiters();
    }

    /// Number of the transaction of those who enter now.
    pub fn current(&self) -> u64 {
        self.state().current
    }

    /// Those who enter from now on write in the next transaction, in which nobody may be yet. Number of the ended one.
    pub fn turn_over(&self) -> u64 {
        let mut state = self.state();
        state.current += 1;
        state.current - 1
    }

    /// Waits until nobody writes in this transaction, which has ended, any more.
    pub async fn left(&self, ended: u64) {
        self.wait_for(|state| (state.inside[slot(ended)] == 0).then_some(()))
            .await;
    }

    /// Lets nobody in any more and waits for those inside.
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

    /// Lets the others go on as far as they can.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// The number of the transaction that it got into.
    fn enter(gate: &Arc<Gate>, round: u64) -> tokio::task::JoinHandle<Option<u64>> {
        let gate = gate.clone();
        tokio::spawn(async move { gate.enter(round).await.map(|inside| inside.transaction) })
    }

    #[tokio::test]
    async fn a_closed_gate_is_empty_and_lets_nobody_in_until_it_opens() {
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
        assert_eq!(late.await.unwrap(), None, "it belongs to what was aborted");
        assert!(gate.enter(gate.round()).await.is_some());
    }

    #[tokio::test]
    async fn a_transaction_ends_when_those_inside_have_left_and_others_go_on_in_the_next() {
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

//! What one writer has not written of a part: rejected, to be retried, not attempted, or given up. Pure.

use std::collections::HashSet;

use crate::{
    record::{batch::Batch, failure::Failure},
    transaction::TransactionFailure,
};

/// A record that the writer rejects permanently, with the number of attempts it took.
#[derive(Debug)]
pub(crate) struct RejectedRecord {
    pub failure: Failure,
    pub attempts: u32,
    /// The outputs of the record that are not written.
    pub outputs: Vec<u32>,
}

/// An output to retry after a backoff.
#[derive(Debug)]
pub(crate) struct RetryLater {
    pub output: u32,
    pub attempts: u32,
    pub message: String,
}

/// All outputs that are not simply written.
#[derive(Debug, Default)]
pub(crate) struct WriteOutcome {
    pub rejected: Vec<RejectedRecord>,
    pub later: Vec<RetryLater>,
    /// With `RetryMode::RequeueWithFollowers`: outputs that were not attempted.
    pub rest: Vec<u32>,
    /// With `RetryMode::Never`: number of outputs that may or may not be written.
    pub given_up: usize,
    /// With `RetryMode::AbortTransaction`: the transaction cannot be committed, and the
    /// outcome does not count.
    pub failure: Option<TransactionFailure>,
}

impl WriteOutcome {
    /// Those of `outputs` that are not written. With `repeat`, also those that were written before they
    /// should have been.
    pub fn left(&self, batch: &Batch, outputs: &[u32], repeat: bool) -> Vec<u32> {
        let rejected = self
            .rejected
            .iter()
            .flat_map(|rejected| rejected.outputs.iter().copied());
        let later = self.later.iter().map(|later| later.output);
        let left: HashSet<u32> = rejected.chain(later).chain(self.rest.iter().copied()).collect();
        if left.is_empty() {
            return Vec::new();
        }
        with_later_of_their_keys(batch, outputs, &left, repeat)
    }
}

/// The outputs to write again. With `repeat`, also the later ones with the same keys: twice in the right
/// order is better than once in the wrong order.
fn with_later_of_their_keys(batch: &Batch, outputs: &[u32], again: &HashSet<u32>, repeat: bool) -> Vec<u32> {
    let mut keys = HashSet::new();
    let mut repeated = |output: &u32| {
        let key = batch.output(*output as usize).record.key;
        let itself = again.contains(output);
        if itself && repeat {
            keys.extend(key);
        }
        itself || key.is_some_and(|key| keys.contains(key))
    };
    outputs
        .iter()
        .copied()
        .filter(|output| repeated(output))
        .collect()
}

//! Records that wait for the broker's answer. librdkafka carries one number per record, which encodes the
//! slot of its batch and the index of the record in the batch, so a record costs no allocation. A batch
//! leaves its slot when its last record is answered, whether or not the sender still waits.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use crate::sync;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::{Notify, futures::Notified, oneshot, watch};

// The number holds the slot in its upper bits and the index in its lower bits.
const INDEX_BITS: u32 = 32;
const _: () = assert!(usize::BITS == 64);

/// A record that the broker did not confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchAnswer {
    /// Index in its batch.
    pub index: usize,
    /// librdkafka's error code.
    pub code: RDKafkaErrorCode,
    /// True if the record never entered librdkafka's queue.
    pub local: bool,
}

struct PendingBatch {
    outstanding: usize,
    failures: Vec<BatchAnswer>,
    waiter: oneshot::Sender<Vec<BatchAnswer>>,
}

#[derive(Default)]
struct Slots {
    batches: Vec<Option<PendingBatch>>,
    free: Vec<usize>,
}

/// All batches of a producer that are not completely answered.
#[derive(Default)]
pub(super) struct PendingBatches {
    slots: Mutex<Slots>,
    reports: Notify,
    failed: watch::Sender<bool>,
    problem: Mutex<Option<String>>,
    has_problem: AtomicBool,
}

impl PendingBatches {
    /// Reserves a slot for a batch of `len` records. The receiver gets the failures when all records are
    /// answered.
    pub fn open(self: &Arc<Self>, len: usize) -> (Ticket, oneshot::Receiver<Vec<BatchAnswer>>) {
        let (waiter, answers) = oneshot::channel();
        let batch = PendingBatch {
            outstanding: len,
            failures: Vec::new(),
            waiter,
        };
        let mut slots = self.slots();
        let slot = match slots.free.pop() {
            Some(slot) => {
                slots.batches[slot] = Some(batch);
                slot
            }
            None => {
                slots.batches.push(Some(batch));
                slots.batches.len() - 1
            }
        };
        drop(slots);
        (
            Ticket {
                pending: self.clone(),
                slot,
                remaining: len,
            },
            answers,
        )
    }

    /// Records the answer for one record.
    pub fn answer(&self, opaque: usize, failure: Option<RDKafkaErrorCode>) {
        let index = opaque & ((1 << INDEX_BITS) - 1);
        self.resolve(
            opaque >> INDEX_BITS,
            1,
            failure.map(|code| BatchAnswer {
                index,
                code,
                local: false,
            }),
        );
        if failure.is_some() {
            self.failed.send_replace(true);
        }
        if failure.is_none() && self.has_problem.swap(false, Ordering::Relaxed) {
            *sync::lock(&self.problem) = None;
        }
        self.reports.notify_waiters();
    }

    /// Resolves at the next answer.
    pub fn report(&self) -> Notified<'_> {
        self.reports.notified()
    }

    /// Resolves once a record has failed, now or earlier.
    pub async fn first_failure(&self) {
        // `self` owns the sender, so the wait cannot end in another way.
        let _ = self.failed.subscribe().wait_for(|failed| *failed).await;
    }

    /// Records the client's latest problem; the next success clears it. A mere `consequence` does not replace
    /// the cause.
    pub fn note_problem(&self, message: &str, consequence: bool) {
        let mut problem = sync::lock(&self.problem);
        if problem.is_none() || !consequence {
            *problem = Some(message.to_string());
        }
        self.has_problem.store(true, Ordering::Relaxed);
    }

    /// The client's latest problem.
    pub fn problem(&self) -> Option<String> {
        sync::lock(&self.problem).clone()
    }

    fn resolve(&self, slot: usize, count: usize, failure: Option<BatchAnswer>) {
        let mut slots = self.slots();
        let Some(Some(batch)) = slots.batches.get_mut(slot) else {
            return;
        };
        batch.failures.extend(failure);
        batch.outstanding = batch.outstanding.saturating_sub(count);
        if batch.outstanding == 0
            && let Some(batch) = slots.batches[slot].take()
        {
            slots.free.push(slot);
            drop(slots);
            // There is no receiver if the sending task was cancelled.
            let _ = batch.waiter.send(batch.failures);
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        sync::lock(&self.slots)
    }
}

/// The right to enqueue the records of a batch. Dropping it abandons the records that are not enqueued yet,
/// so a cancelled sender leaves nothing behind.
pub(super) struct Ticket {
    pending: Arc<PendingBatches>,
    slot: usize,
    remaining: usize,
}

impl Ticket {
    /// The number that librdkafka carries for the record at `index`.
    pub fn opaque(&self, index: usize) -> usize {
        (self.slot << INDEX_BITS) | index
    }

    /// The next record is in librdkafka's queue; its answer comes through [`PendingBatches::answer`].
    pub fn handed_over(&mut self) {
        self.remaining -= 1;
    }

    /// librdkafka did not accept the next record.
    pub fn refused(&mut self, index: usize, code: RDKafkaErrorCode) {
        self.remaining -= 1;
        self.pending.resolve(
            self.slot,
            1,
            Some(BatchAnswer {
                index,
                code,
                local: true,
            }),
        );
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.remaining > 0 {
            self.pending.resolve(self.slot, self.remaining, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_is_answered_when_its_last_record_is() {
        let pending = Arc::new(PendingBatches::default());
        let (mut ticket, mut answers) = pending.open(3);
        let opaques = [ticket.opaque(0), ticket.opaque(2)];
        ticket.handed_over();
        ticket.refused(1, RDKafkaErrorCode::MessageSizeTooLarge);
        ticket.handed_over();
        drop(ticket);
        pending.answer(opaques[1], Some(RDKafkaErrorCode::MessageTimedOut));
        assert!(answers.try_recv().is_err());
        pending.answer(opaques[0], None);
        let answers = answers.await.unwrap();
        assert_eq!(
            answers
                .iter()
                .map(|answer| (answer.index, answer.local))
                .collect::<Vec<_>>(),
            [(1, true), (2, false)]
        );
    }

    #[tokio::test]
    async fn a_cancelled_sender_frees_its_slot_once_the_handed_over_records_are_answered() {
        let pending = Arc::new(PendingBatches::default());
        let (mut ticket, answers) = pending.open(5);
        let opaque = ticket.opaque(0);
        ticket.handed_over();
        drop(answers);
        drop(ticket);
        assert!(pending.slots().free.is_empty());
        pending.answer(opaque, None);
        assert_eq!(pending.slots().free, [0]);
        let (second, _) = pending.open(1);
        assert_eq!(second.slot, 0);
    }

    #[test]
    fn a_problem_is_reported_until_the_next_success() {
        let pending = Arc::new(PendingBatches::default());
        let (mut ticket, _answers) = pending.open(1);
        ticket.handed_over();
        pending.note_problem("login refused", false);
        pending.note_problem("all brokers are down", true);
        assert_eq!(pending.problem().as_deref(), Some("login refused"));
        pending.answer(ticket.opaque(0), None);
        assert_eq!(pending.problem(), None);
    }
}

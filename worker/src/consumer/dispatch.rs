//! How chunks get from the poll loop to the partition's task. Normally the dispatcher sends them at once.
//! With AtMostOnce, it sends them only after the broker has confirmed the commit of their offsets. With
//! transactions, it limits the number of records at the task. Pure, except for the channel.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::{offsets::Sequence, processing::messages::DispatchedChunk, record::Offset};

/// The sending side of a partition's task.
pub(super) struct Dispatcher {
    /// None after the last chunk was sent.
    task: Option<mpsc::UnboundedSender<DispatchedChunk>>,
    commit_first: Option<CommitFirst>,
    metered: Option<Metered>,
}

/// Chunks that wait until the limit allows them.
struct Metered {
    waiting: VecDeque<DispatchedChunk>,
    /// End of the dispatched records.
    dispatched: Sequence,
    /// Limit of records at the task, from the first unfinished one to the last. A single chunk may exceed it.
    limit: usize,
}

/// Chunks that wait for the commit, each with the offset behind its last record.
#[derive(Default)]
struct CommitFirst {
    waiting: VecDeque<(Offset, DispatchedChunk)>,
    /// Chunks up to this offset are dispatched.
    confirmed: Option<Offset>,
    /// How many of the waiting chunks the running commit covers.
    committing: usize,
    finishing: bool,
}

impl Dispatcher {
    pub fn at_once(task: mpsc::UnboundedSender<DispatchedChunk>) -> Self {
        Self {
            task: Some(task),
            commit_first: None,
            metered: None,
        }
    }

    pub fn committed_first(task: mpsc::UnboundedSender<DispatchedChunk>) -> Self {
        Self {
            commit_first: Some(CommitFirst::default()),
            ..Self::at_once(task)
        }
    }

    pub fn metered(limit: usize, task: mpsc::UnboundedSender<DispatchedChunk>) -> Self {
        Self {
            metered: Some(Metered {
                waiting: VecDeque::new(),
                dispatched: 0,
                limit,
            }),
            ..Self::at_once(task)
        }
    }

    /// Takes a chunk that ends before `end`: sends it, or queues it.
    pub fn dispatch(&mut self, end: Offset, chunk: DispatchedChunk) {
        match (&mut self.commit_first, &mut self.metered) {
            (Some(queue), _) => queue.waiting.push_back((end, chunk)),
            (None, Some(queue)) => queue.waiting.push_back(chunk),
            (None, None) => self.send(chunk),
        }
    }

    /// Sets the limit of records at the task. Returns false if this dispatcher has no limit.
    pub fn limit_to(&mut self, limit: usize, oldest: Sequence) -> bool {
        let Some(queue) = &mut self.metered else {
            return false;
        };
        queue.limit = limit;
        self.dispatch_ready(oldest);
        true
    }

    /// Dispatches the chunks that the limit allows. `oldest` is the first unfinished record. The number of
    /// records behind it does not matter, because records that an earlier owner has finished never reach the
    /// task. If everything dispatched is finished, the oldest record is in the first waiting chunk, and that
    /// chunk is dispatched regardless of the limit. So there is always progress.
    pub fn dispatch_ready(&mut self, oldest: Sequence) {
        let mut ready = Vec::new();
        if let Some(queue) = &mut self.metered {
            while let Some(next) = queue.waiting.front() {
                let end = next.first + next.chunk.len() as Sequence;
                let alone = queue.dispatched <= oldest;
                if !alone && end.saturating_sub(oldest) > queue.limit as Sequence {
                    break;
                }
                queue.dispatched = end;
                ready.extend(queue.waiting.pop_front());
            }
        }
        for chunk in ready {
            self.send(chunk);
        }
    }

    fn send(&self, chunk: DispatchedChunk) {
        if let Some(task) = &self.task {
            // A task that has ended takes no chunks; their records stay unfinished.
            let _ = task.send(chunk);
        }
    }

    /// True when chunks wait that no running commit covers.
    pub fn needs_commit(&self) -> bool {
        let queue = self.commit_first.as_ref();
        queue.is_some_and(|queue| queue.waiting.len() > queue.committing)
    }

    /// With AtMostOnce, the offset to commit, if any. Otherwise None, and finished records decide what to
    /// commit.
    pub fn to_commit(&self) -> Option<Option<Offset>> {
        let queue = self.commit_first.as_ref()?;
        let waiting = queue.waiting.back().map(|(end, _)| *end);
        Some(waiting.or(queue.confirmed))
    }

    /// A commit of [`Dispatcher::to_commit`] is in flight.
    pub fn committing(&mut self) {
        if let Some(queue) = &mut self.commit_first {
            queue.committing = queue.waiting.len();
        }
    }

    /// The coordinator has confirmed the commit up to this offset, or, with None, the commit failed.
    pub fn answered(&mut self, committed: Option<Offset>) {
        let Some(queue) = &mut self.commit_first else {
            return;
        };
        queue.committing = 0;
        let mut confirmed = Vec::new();
        if let Some(committed) = committed {
            queue.confirmed = queue.confirmed.max(Some(committed));
            while queue.waiting.front().is_some_and(|(end, _)| *end <= committed) {
                confirmed.extend(queue.waiting.pop_front());
            }
        }
        let finishing = queue.finishing;
        for (_, chunk) in confirmed {
            self.send(chunk);
        }
        if finishing {
            self.end();
        }
    }

    /// No more chunks will come. Returns true when the task ends by itself after all dispatched chunks,
    /// because it must not drop what is already committed. Returns false when the task may drop what it has
    /// not started.
    pub fn finish(&mut self) -> bool {
        if let Some(queue) = &mut self.metered {
            queue.waiting.clear();
        }
        let Some(queue) = &mut self.commit_first else {
            return false;
        };
        queue.finishing = true;
        queue.waiting.truncate(queue.committing);
        if queue.waiting.is_empty() {
            self.end();
        }
        true
    }

    fn end(&mut self) {
        if let Some(queue) = &mut self.commit_first {
            queue.waiting.clear();
        }
        self.task = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Chunk, TopicPartition};

    fn empty(first: u64) -> DispatchedChunk {
        DispatchedChunk {
            chunk: Chunk::new(TopicPartition::new("t", 0), 1),
            first,
        }
    }

    fn received(task: &mut mpsc::UnboundedReceiver<DispatchedChunk>) -> Vec<u64> {
        std::iter::from_fn(|| task.try_recv().ok())
            .map(|chunk| chunk.first)
            .collect()
    }

    #[test]
    fn without_commit_first_chunks_are_dispatched_at_once() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::at_once(input);
        dispatcher.dispatch(5, empty(0));
        assert_eq!((received(&mut task), dispatcher.to_commit()), (vec![0], None));
        assert!(!dispatcher.finish());
    }

    #[test]
    fn a_chunk_is_dispatched_only_when_its_offsets_are_committed() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::committed_first(input);
        assert_eq!(dispatcher.to_commit(), Some(None));
        dispatcher.dispatch(5, empty(0));
        dispatcher.dispatch(8, empty(5));
        assert!(dispatcher.needs_commit() && received(&mut task).is_empty());
        assert_eq!(dispatcher.to_commit(), Some(Some(8)));
        dispatcher.committing();
        dispatcher.dispatch(9, empty(8));
        dispatcher.answered(None);
        assert!(
            dispatcher.needs_commit() && received(&mut task).is_empty(),
            "refused"
        );
        dispatcher.answered(Some(8));
        assert_eq!(received(&mut task), [0, 5]);
        assert_eq!(dispatcher.to_commit(), Some(Some(9)));
    }

    #[test]
    fn at_the_end_chunks_in_the_running_commit_are_still_dispatched_and_the_rest_is_dropped() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::committed_first(input);
        dispatcher.dispatch(5, empty(0));
        dispatcher.committing();
        dispatcher.dispatch(8, empty(5));
        assert!(dispatcher.finish() && !dispatcher.needs_commit());
        assert!(received(&mut task).is_empty());
        dispatcher.answered(Some(5));
        assert_eq!(received(&mut task), [0]);
        let ended = matches!(task.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        assert!(ended, "the task ends by itself");
    }

    fn chunk(first: u64, records: i64) -> DispatchedChunk {
        let mut dispatched = empty(first);
        (0..records).for_each(|offset| dispatched.chunk.push(offset, 0, None, None, []));
        dispatched
    }

    #[test]
    fn with_a_limit_chunks_wait_and_a_single_chunk_is_always_dispatched() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::metered(5, input);
        dispatcher.dispatch(9, chunk(0, 9));
        dispatcher.dispatch_ready(0);
        assert_eq!(received(&mut task), [0], "larger than the limit, and alone");
        dispatcher.dispatch(11, chunk(9, 2));
        dispatcher.dispatch(14, chunk(11, 3));
        dispatcher.dispatch(15, chunk(14, 1));
        dispatcher.dispatch_ready(0);
        assert!(received(&mut task).is_empty());
        // Two records of the first chunk are unfinished.
        dispatcher.dispatch_ready(7);
        assert_eq!(received(&mut task), [9]);
        // Two records of the second chunk are unfinished.
        dispatcher.dispatch_ready(9);
        assert_eq!(received(&mut task), [11]);
        assert!(dispatcher.limit_to(6, 9));
        assert_eq!(received(&mut task), [14]);
        dispatcher.dispatch(20, chunk(15, 5));
        assert!(!dispatcher.finish());
        dispatcher.dispatch_ready(20);
        assert!(
            received(&mut task).is_empty(),
            "chunks that wait at the end are dropped"
        );
    }

    #[test]
    fn records_finished_by_an_earlier_owner_do_not_count_against_the_limit() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::metered(0, input);
        dispatcher.dispatch(1, chunk(0, 1));
        dispatcher.dispatch_ready(0);
        // The records in between never reach the dispatcher, and neither do any behind the last one.
        dispatcher.dispatch(8, chunk(7, 1));
        dispatcher.dispatch(10, chunk(8, 2));
        dispatcher.dispatch_ready(0);
        assert_eq!(received(&mut task), [0]);
        dispatcher.dispatch_ready(7);
        assert_eq!(received(&mut task), [7]);
        dispatcher.dispatch_ready(8);
        assert_eq!(received(&mut task), [8]);
        dispatcher.dispatch_ready(9);
        dispatcher.dispatch(31, chunk(30, 1));
        dispatcher.dispatch_ready(9);
        assert!(
            received(&mut task).is_empty(),
            "one record of the last chunk is unfinished"
        );
        dispatcher.dispatch_ready(30);
        assert_eq!(received(&mut task), [30]);
    }

    #[test]
    fn without_a_limit_all_chunks_are_dispatched() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::at_once(input);
        assert!(!dispatcher.limit_to(0, 0));
        dispatcher.dispatch(1, chunk(0, 1));
        dispatcher.dispatch(2, chunk(1, 1));
        assert_eq!(received(&mut task), [0, 1]);
    }
}

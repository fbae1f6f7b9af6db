//! How chunks get from the poll loop to the partition's task: at once; or, with AtMostOnce, only after the broker has
//! confirmed the commit of their offsets; or, with transactions, so that only so many records are there at a time. Pure but
//! for the channel.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::{offsets::Sequence, processing::messages::DispatchedChunk, record::Offset};

/// The sending side of a partition's task.
pub(super) struct Dispatcher {
    /// None once everything has been handed on that ever will be.
    task: Option<mpsc::UnboundedSender<DispatchedChunk>>,
    commit_first: Option<CommitFirst>,
    metered: Option<Metered>,
}

/// Chunks that wait for room.
struct Metered {
    waiting: VecDeque<DispatchedChunk>,
    /// Behind the last record that was handed on.
    handed_on: Sequence,
    /// Records that may be with the task, from the first unfinished one to the last. A chunk alone may have more.
    limit: usize,
}

/// Chunks that wait for the commit, each with the offset behind its last record.
#[derive(Default)]
struct CommitFirst {
    waiting: VecDeque<(Offset, DispatchedChunk)>,
    /// Handed on up to here.
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
                handed_on: 0,
                limit,
            }),
            ..Self::at_once(task)
        }
    }

    /// Takes a chunk that ends before `end`.
    pub fn dispatch(&mut self, end: Offset, work: DispatchedChunk) {
        match (&mut self.commit_first, &mut self.metered) {
            (Some(queue), _) => queue.waiting.push_back((end, work)),
            (None, Some(queue)) => queue.waiting.push_back(work),
            (None, None) => self.send(work),
        }
    }

    /// From now on so many records may be with the task. False where nothing is metered.
    pub fn limit_to(&mut self, limit: usize, oldest: Sequence) -> bool {
        let Some(queue) = &mut self.metered else {
            return false;
        };
        queue.limit = limit;
        self.dispatch_ready(oldest);
        true
    }

    /// Hands on what there is room for; `oldest` is the first record that is not finished. How many there are behind it says
    /// nothing: those that an earlier owner has finished are never with the task. Where all that was handed on is finished, the
    /// oldest one is in the first chunk that waits, and that goes on whatever the limit is; so something always does.
    pub fn dispatch_ready(&mut self, oldest: Sequence) {
        let mut ready = Vec::new();
        if let Some(queue) = &mut self.metered {
            while let Some(next) = queue.waiting.front() {
                let end = next.first + next.chunk.len() as Sequence;
                let alone = queue.handed_on <= oldest;
                if !alone && end.saturating_sub(oldest) > queue.limit as Sequence {
                    break;
                }
                queue.handed_on = end;
                ready.extend(queue.waiting.pop_front());
            }
        }
        for work in ready {
            self.send(work);
        }
    }

    fn send(&self, work: DispatchedChunk) {
        if let Some(task) = &self.task {
            // A task that has ended takes nothing; its records stay unfinished.
            let _ = task.send(work);
        }
    }

    /// True when chunks wait that no running commit covers.
    pub fn waits(&self) -> bool {
        let queue = self.commit_first.as_ref();
        queue.is_some_and(|queue| queue.waiting.len() > queue.committing)
    }

    /// With AtMostOnce, the offset to commit, if any; else None, and finished records decide.
    pub fn to_commit(&self) -> Option<Option<Offset>> {
        let queue = self.commit_first.as_ref()?;
        let waiting = queue.waiting.back().map(|(end, _)| *end);
        Some(waiting.or(queue.confirmed))
    }

    /// A commit of [`Dispatcher::to_commit`] is on its way.
    pub fn committing(&mut self) {
        if let Some(queue) = &mut self.commit_first {
            queue.committing = queue.waiting.len();
        }
    }

    /// The commit was confirmed up to this offset, or failed.
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
        for (_, work) in confirmed {
            self.send(work);
        }
        if finishing {
            self.end();
        }
    }

    /// No more chunks will come. True when the task will end by itself, after everything that was or will be handed on:
    /// what is committed already must not be dropped. False when the task may drop what it has not begun.
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

    fn work(first: u64) -> DispatchedChunk {
        DispatchedChunk {
            chunk: Chunk::new(TopicPartition::new("t", 0), 1),
            first,
        }
    }

    fn received(task: &mut mpsc::UnboundedReceiver<DispatchedChunk>) -> Vec<u64> {
        std::iter::from_fn(|| task.try_recv().ok())
            .map(|work| work.first)
            .collect()
    }

    #[test]
    fn without_a_commit_first_chunks_go_on_at_once() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::at_once(input);
        dispatcher.dispatch(5, work(0));
        assert_eq!((received(&mut task), dispatcher.to_commit()), (vec![0], None));
        assert!(!dispatcher.finish());
    }

    #[test]
    fn a_chunk_goes_on_only_when_its_offsets_are_committed() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::committed_first(input);
        assert_eq!(dispatcher.to_commit(), Some(None));
        dispatcher.dispatch(5, work(0));
        dispatcher.dispatch(8, work(5));
        assert!(dispatcher.waits() && received(&mut task).is_empty());
        assert_eq!(dispatcher.to_commit(), Some(Some(8)));
        dispatcher.committing();
        dispatcher.dispatch(9, work(8));
        dispatcher.answered(None);
        assert!(dispatcher.waits() && received(&mut task).is_empty(), "refused");
        dispatcher.answered(Some(8));
        assert_eq!(received(&mut task), [0, 5]);
        assert_eq!(dispatcher.to_commit(), Some(Some(9)));
    }

    #[test]
    fn at_the_end_what_is_being_committed_is_still_handed_on_and_the_rest_is_not() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::committed_first(input);
        dispatcher.dispatch(5, work(0));
        dispatcher.committing();
        dispatcher.dispatch(8, work(5));
        assert!(dispatcher.finish() && !dispatcher.waits());
        assert!(received(&mut task).is_empty());
        dispatcher.answered(Some(5));
        assert_eq!(received(&mut task), [0]);
        let ended = matches!(task.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        assert!(ended, "the task ends by itself");
    }

    fn chunk(first: u64, records: i64) -> DispatchedChunk {
        let mut work = work(first);
        (0..records).for_each(|offset| work.chunk.push(offset, 0, None, None, []));
        work
    }

    #[test]
    fn with_a_limit_chunks_wait_for_room_and_one_alone_always_has_it() {
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
        // Two of the first chunk are left.
        dispatcher.dispatch_ready(7);
        assert_eq!(received(&mut task), [9]);
        // Two of the second are.
        dispatcher.dispatch_ready(9);
        assert_eq!(received(&mut task), [11]);
        assert!(dispatcher.limit_to(6, 9));
        assert_eq!(received(&mut task), [14]);
        dispatcher.dispatch(20, chunk(15, 5));
        assert!(!dispatcher.finish());
        dispatcher.dispatch_ready(20);
        assert!(received(&mut task).is_empty(), "what waits at the end is dropped");
    }

    #[test]
    fn what_was_finished_behind_a_chunk_that_waits_takes_no_room() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::metered(0, input);
        dispatcher.dispatch(1, chunk(0, 1));
        dispatcher.dispatch_ready(0);
        // The records in between never come here, and neither do any behind the last one.
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
        assert!(received(&mut task).is_empty(), "one of the last chunk is open");
        dispatcher.dispatch_ready(30);
        assert_eq!(received(&mut task), [30]);
    }

    #[test]
    fn without_a_limit_nothing_is_limited() {
        let (input, mut task) = mpsc::unbounded_channel();
        let mut dispatcher = Dispatcher::at_once(input);
        assert!(!dispatcher.limit_to(0, 0));
        dispatcher.dispatch(1, chunk(0, 1));
        dispatcher.dispatch(2, chunk(1, 1));
        assert_eq!(received(&mut task), [0, 1]);
    }
}

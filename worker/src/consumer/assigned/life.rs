//! The state of a partition's task: working, draining, ended, or discarded by the loop.

use tokio::{sync::watch, task::AbortHandle};

/// The state of the task of one partition.
pub struct Life {
    /// The task has to end; see [`Life::drain`].
    draining: bool,
    /// The task has ended.
    ended: bool,
    /// Its transaction was aborted: its finished records do not count.
    discarded: bool,
    drain: watch::Sender<bool>,
    task: AbortHandle,
}

impl Life {
    /// The task has started. `drain` is the flag that it follows.
    pub fn new(drain: watch::Sender<bool>, task: AbortHandle) -> Self {
        Self {
            draining: false,
            ended: false,
            discarded: false,
            drain,
            task,
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    pub fn is_discarded(&self) -> bool {
        self.discarded
    }

    /// The task has reported its end.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The task has to end. With `now`, it starts nothing more. Otherwise it first processes all chunks whose
    /// offsets are committed (AtMostOnce), and ends by itself when its input closes.
    pub fn drain(&mut self, now: bool) {
        self.draining = true;
        if now {
            self.drain.send_replace(true);
        }
    }

    /// Ends the task at once. Its work in flight stays unfinished.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// What the task finishes from now on does not count.
    pub fn discard(&mut self) {
        self.discarded = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_not_asked_to_start_nothing_more() {
        let (drain, draining) = watch::channel(false);
        let task = tokio::spawn(std::future::pending::<()>());
        let mut life = Life::new(drain, task.abort_handle());
        life.drain(false);
        assert!(life.is_draining() && !*draining.borrow());
        life.drain(true);
        assert!(*draining.borrow() && !life.has_ended() && !life.is_discarded());
        life.abort();
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
        assert!(!life.has_ended(), "only its report counts");
        life.end();
        assert!(life.has_ended());
    }
}

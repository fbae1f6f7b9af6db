//! Waiting for a fixed time, to a few microseconds. Tokio's timers count in milliseconds and would make two of one.
//!
//! One thread wakes all who wait. As everybody waits equally long, a queue is in the order of their ends, and nobody who
//! comes while the thread sleeps can be due before the first in the queue.

use std::{
    collections::VecDeque,
    fs, io,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

type Queue = Mutex<VecDeque<(Instant, oneshot::Sender<()>)>>;

/// The thread and those who wait for it; it ends with this.
pub struct Delay {
    time: Duration,
    queue: Arc<Queue>,
}

impl Delay {
    /// Starts the thread.
    pub fn start(time: Duration) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let waiting = Arc::downgrade(&queue);
        thread::Builder::new()
            .name("delay".into())
            .spawn(move || wake(&waiting, time))?;
        Ok(Self { time, queue })
    }

    /// Returns after the time.
    pub async fn wait(&self) {
        let (done, waiting) = oneshot::channel();
        let due = Instant::now() + self.time;
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((due, done));
        // The thread lives as long as we do.
        let _ = waiting.await;
    }
}

fn wake(queue: &Weak<Queue>, time: Duration) {
    sleep_exactly();
    let mut due = Vec::new();
    while let Some(queue) = queue.upgrade() {
        let now = Instant::now();
        let next = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some((at, _)) = queue.front()
                && *at <= now
            {
                due.extend(queue.pop_front());
            }
            queue.front().map_or(now + time, |(at, _)| *at)
        };
        // Outside of the lock, which those who are woken want next.
        for (_, done) in due.drain(..) {
            // Whoever has stopped waiting need not be told.
            let _ = done.send(());
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// The kernel lets a sleeping thread sleep up to 50 us longer, to wake several at once. Not this one, where it may be asked.
fn sleep_exactly() {
    if let Ok(thread) = fs::read_link("/proc/thread-self")
        && let Some(id) = thread.file_name().and_then(|name| name.to_str())
    {
        // Without it, the work takes a little longer than it should.
        let _ = fs::write(format!("/proc/{id}/timerslack_ns"), "1000");
    }
}

//! Waits for a fixed time. Tokio's timers count in milliseconds and would turn one millisecond into two.
//!
//! One thread wakes all waiting tasks. All of them wait for the same time, so a queue is in the order of
//! their ends, and a task that arrives while the thread sleeps is never due before the first one in the
//! queue.
//!
//! A sleeping thread wakes some dozen microseconds late, more on a busier machine. This delay is not part of
//! the work, so the thread aims earlier by that much ([`Aim`]): on average a wait ends on time. The further
//! delay until a woken task runs is not compensated, because it depends on the worker.

use std::{
    collections::VecDeque,
    fs, io,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

type Queue = Mutex<VecDeque<(Instant, oneshot::Sender<()>)>>;

/// The thread and the tasks that wait for it; the thread ends with this value.
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

    /// Returns after this time.
    pub async fn wait(&self) {
        let (done, waiting) = oneshot::channel();
        let due = Instant::now() + self.time;
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((due, done));
        // The thread lives as long as this value.
        let _ = waiting.await;
    }
}

/// How much earlier to aim in order to be on time on average.
struct Aim {
    early: Duration,
    most: Duration,
}

impl Aim {
    /// One hit weighs a 64th: the aim follows the machine within a few milliseconds.
    const WEIGHT: u32 = 64;

    fn hit(&mut self, due: Instant, now: Instant) {
        let late = now.saturating_duration_since(due) / Self::WEIGHT;
        let early = due.saturating_duration_since(now) / Self::WEIGHT;
        self.early = (self.early + late).saturating_sub(early).min(self.most);
    }
}

fn wake(queue: &Weak<Queue>, time: Duration) {
    sleep_exactly();
    let mut aim = Aim {
        early: Duration::ZERO,
        most: time / 2,
    };
    let mut due = Vec::new();
    while let Some(queue) = queue.upgrade() {
        let now = Instant::now();
        let next = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some((at, _)) = queue.front()
                && *at <= now + aim.early
            {
                due.extend(queue.pop_front());
            }
            queue.front().map_or(now + time, |(at, _)| *at - aim.early)
        };
        // After releasing the lock, which the woken tasks need next.
        for (at, done) in due.drain(..) {
            aim.hit(at, Instant::now());
            // A task that has stopped waiting needs no notice.
            let _ = done.send(());
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// The kernel may let a sleeping thread sleep up to 50 us longer, to wake several at once. This asks it not
/// to, for this thread.
fn sleep_exactly() {
    if let Ok(thread) = fs::read_link("/proc/thread-self")
        && let Some(id) = thread.file_name().and_then(|name| name.to_str())
    {
        // If this fails, the work takes slightly longer than it should.
        let _ = fs::write(format!("/proc/{id}/timerslack_ns"), "1000");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_delay_is_compensated_by_aiming_earlier() {
        let mut aim = Aim {
            early: Duration::ZERO,
            most: Duration::from_micros(500),
        };
        let due = Instant::now() + Duration::from_secs(1);
        let miss = |aim: &Aim, late: Duration| due - aim.early + late;
        for late in [100, 20].map(Duration::from_micros) {
            for _ in 0..1000 {
                let hit = miss(&aim, late);
                aim.hit(due, hit);
            }
            let off = aim.early.abs_diff(late);
            assert!(off < Duration::from_micros(1), "{:?} for {late:?}", aim.early);
        }
        for _ in 0..1000 {
            aim.hit(due, due + Duration::from_secs(1));
        }
        assert_eq!(aim.early, aim.most, "never more than half of the time");
    }
}

//! Waiting for a state of the real systems. A check says `Ok` when it is reached, and an error that tells what it saw
//! when not; the last such error is what a test fails with. Bounds are generous, because a slow machine is no bug: no
//! test asserts a time.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Longest wait unless said otherwise. The slowest thing waited for is a new operator after the old one was killed: its
/// lease runs out (15 s), partitions are looked at every 30 s, a status report of a worker is at most 15 s old, all of
/// it on two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Between two looks: short against everything waited for, long enough to leave the machine to the product.
const PAUSE: Duration = Duration::from_millis(300);

/// Waits until `check` returns `Ok`.
pub async fn until<T>(what: &str, check: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    until_within(PATIENCE, what, check).await
}

/// Waits until `check` returns `Ok`, at most `within`.
pub async fn until_within<T>(
    within: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match check().await {
            Ok(value) => {
                println!("  {what}: after {:.1} s", started.elapsed().as_secs_f32());
                return Ok(value);
            }
            Err(last) if started.elapsed() >= within => {
                return Err(anyhow!(
                    "not within {} s: {what}; seen last: {last:#}",
                    within.as_secs()
                ));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

//! Waits for a state of the real systems. A check returns `Ok` when the state is reached, otherwise an error
//! with what it saw; the test fails with the last such error. Limits are generous, because a slow machine is
//! not a bug: no test asserts a duration.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// The longest wait by default. The slowest case is a new operator after a kill of the old one: its lease
/// expires (15 s), it checks partitions every 30 s, a worker's status report is up to 15 s old, all of it on
/// two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Pause between two checks: short against every wait, and long enough to leave the CPU to the product.
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
                    "not within {} s: {what}; last seen: {last:#}",
                    within.as_secs()
                ));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

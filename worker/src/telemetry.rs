//! Logs on stderr (stdout belongs to the Stdout writer), metrics and probes of a worker. Never shows keys,
//! values or secrets.

pub mod http;
pub mod metrics;

use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::ValueEnum;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

pub use metrics::{Metrics, PartitionMetrics};

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The value of `--log` is not a filter.
#[derive(Debug, Error)]
#[error(
    "--log {filter:?} is not a filter: {reason}; write a level such as info, or pairs such as info,kafka_consumer_worker=debug"
)]
pub struct InvalidFilter {
    filter: String,
    reason: String,
}

/// Starts logging to stderr; the first call in a process wins.
pub fn init(format: LogFormat, filter: &str) -> Result<(), InvalidFilter> {
    let env_filter = EnvFilter::try_new(filter).map_err(|error| InvalidFilter {
        filter: filter.into(),
        reason: error.to_string(),
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(env_filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would report a broken stderr on stderr and panic. A worker must drain even if its log cannot be
        // written.
        .log_internal_errors(false);
    // A second initialization happens if a program embeds the worker and already logs; its choice stays.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Shows whether the poll thread runs: the thread ticks, and the probe reads the time since the last tick.
#[derive(Clone, Debug)]
pub struct Liveness {
    start: Instant,
    last: Arc<AtomicU64>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self::new()
    }
}

impl Liveness {
    /// The last tick is now, so that a starting worker has the full allowance.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            last: Arc::default(),
        }
    }

    /// Records that the thread is running.
    pub fn tick(&self) {
        self.last
            .store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Time since the last tick.
    pub fn age(&self) -> Duration {
        self.start
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }

    #[cfg(test)]
    pub(crate) fn ticked_ago(age: Duration) -> Self {
        Self {
            start: Instant::now().checked_sub(age).unwrap(),
            last: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_resets_the_age() {
        let liveness = Liveness::ticked_ago(Duration::from_secs(60));
        assert!(liveness.age() >= Duration::from_secs(60));
        liveness.clone().tick();
        assert!(liveness.age() < Duration::from_secs(30));
    }

    #[test]
    fn an_invalid_filter_says_what_to_write() {
        let error = init(LogFormat::Text, "info,worker=loud").unwrap_err().to_string();
        assert!(
            error.contains("info,worker=loud") && error.contains("kafka_consumer_worker=debug"),
            "{error}"
        );
    }
}

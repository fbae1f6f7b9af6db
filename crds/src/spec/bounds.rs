//! The smallest and the largest value of each number that both the API server and the worker check: the CRD's
//! schema and the worker's validation of its configuration document read them from here.

use std::ops::RangeInclusive;

/// `processing.concurrency`, in batches.
pub const CONCURRENCY: RangeInclusive<i64> = 1..=1024;
/// `processing.commitIntervalMilliseconds`.
pub const COMMIT_INTERVAL_MILLISECONDS: RangeInclusive<i64> = 10..=60_000;
/// `processing.recordsPerSecond`.
pub const RECORDS_PER_SECOND: RangeInclusive<i64> = 1..=10_000_000;
/// `processing.batch.maxRecords`.
pub const BATCH_MAX_RECORDS: RangeInclusive<i64> = 1..=100_000;
/// `processing.batch.maxBytes`: 1 KiB to 64 MiB.
pub const BATCH_MAX_BYTES: RangeInclusive<i64> = 1024..=67_108_864;
/// `processing.batch.lingerMilliseconds`.
pub const BATCH_LINGER_MILLISECONDS: RangeInclusive<i64> = 0..=60_000;
/// `errorHandling.retry.maxAttempts`.
pub const RETRY_MAX_ATTEMPTS: RangeInclusive<i64> = 1..=1000;
/// `errorHandling.retry.initialBackoffMilliseconds`.
pub const RETRY_INITIAL_BACKOFF_MILLISECONDS: RangeInclusive<i64> = 1..=60_000;
/// `errorHandling.retry.maxBackoffSeconds`.
pub const RETRY_MAX_BACKOFF_SECONDS: RangeInclusive<i64> = 1..=3600;
/// `errorHandling.retry.jitterPercent`.
pub const RETRY_JITTER_PERCENT: RangeInclusive<i64> = 0..=100;
/// `errorHandling.transformTimeoutSeconds`.
pub const TRANSFORM_TIMEOUT_SECONDS: RangeInclusive<i64> = 1..=3600;
/// `errorHandling.stalledAfterSeconds`.
pub const STALLED_AFTER_SECONDS: RangeInclusive<i64> = 10..=86_400;
/// `errorHandling.deadLetter.breaker.maxConsecutive`, in records.
pub const BREAKER_MAX_CONSECUTIVE: RangeInclusive<i64> = 1..=1_000_000;
/// `errorHandling.deadLetter.breaker.maxRatioPercent`.
pub const BREAKER_MAX_RATIO_PERCENT: RangeInclusive<i64> = 1..=100;

//! Exit codes of the worker process.

/// Stopped as asked (SIGTERM, SIGINT, or the end of stdin with `--exit-on-stdin-eof`): drained, committed, left.
pub const CLEAN: u8 = 0;
/// Something that starting anew may mend and that has no code of its own: the HTTP port is taken, a thread cannot
/// be started.
pub const STARTUP: u8 = 1;
/// Wrong flags, or a configuration document that cannot be used.
pub const CONFIG: u8 = 2;
/// A Secret or ConfigMap file is missing, unreadable or not what it must be.
pub const CREDENTIALS: u8 = 3;
/// Kafka refuses this member for good: fenced, or a fatal error of librdkafka.
pub const KAFKA_FATAL: u8 = 4;
/// The drain budget ran out, transforms do not come back, or the process was stuck or told twice to stop: what was
/// finished in time is committed, the rest is read again by the next owner.
pub const STUCK: u8 = 5;
/// A panic outside transforms and writers; Rust's own code.
pub const PANIC: u8 = 101;

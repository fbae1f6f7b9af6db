//! Exit codes of the worker process.

/// Stopped on request (SIGTERM, SIGINT, or the end of stdin with `--exit-on-stdin-eof`): drained, committed,
/// left the group. A bounded run: every partition of its plan is finished.
pub const CLEAN: u8 = 0;
/// Could not start, for a reason that a restart may fix and that has no separate code: the HTTP port is in
/// use, a thread cannot be started.
pub const STARTUP: u8 = 1;
/// Invalid flags, or an invalid configuration document.
pub const CONFIG: u8 = 2;
/// A Secret or ConfigMap file is missing, unreadable or has invalid content.
pub const CREDENTIALS: u8 = 3;
/// Kafka permanently refuses this member: fenced, or a fatal error of librdkafka.
pub const KAFKA_FATAL: u8 = 4;
/// The drain budget ran out, transforms do not return, the process was stuck, or it received a second stop
/// signal. The offsets of records finished in time are committed; the next owner reads the other records
/// again.
pub const STUCK: u8 = 5;
/// A bounded run was stopped on request before its end: drained, committed, left the group. A worker that starts
/// again continues from the committed offsets.
pub const UNFINISHED: u8 = crds::worker_config::exit_code::UNFINISHED;
/// A topic of a bounded run was deleted or created again, so the offsets of its plan do not fit any more. Running
/// again cannot help.
pub const PLAN_OUTDATED: u8 = crds::worker_config::exit_code::PLAN_OUTDATED;
/// A panic outside transforms and writers. Rust sets this code.
pub const PANIC: u8 = 101;

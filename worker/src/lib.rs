//! A worker: reads the partitions it is assigned, transforms and writes every record, commits what is finished. A binary
//! (`kafka-consumer-worker`) and a library: [`run`] with a [`Extensions`] of your own transforms and writers is a worker of
//! your own in a few lines (`examples/custom-worker`).
//!
//! ```text
//!  Kafka ──> consumer (poll thread) ── Chunk: records of one partition, in order ──┐
//!    ^                                                                             v
//!    │                     decode ─> transforms ── Batch, split over lanes by `processing.ordering` ──┐
//!    │                                 │ failed                                                     v
//!    │                                 v                                      writers, every one of them
//!    │                              onExhausted: dead letter, skip or stop <── rejected ── │ ── transient: retry without end
//!    │                                                       │ confirmed                   │ confirmed
//!    └──── commit every commitInterval, at revoke and at shutdown <── offsets: first unfinished record ──┘
//! ```
//!
//! **What is committed when**: the offset of the first record that is not finished. A record is finished when every
//! writer has confirmed each output made from it, or the broker has confirmed its copy in the dead letter topic, or a
//! transform filtered it out, or `onExhausted: Skip` dropped and counted it. So nothing is lost by a crash; what was
//! finished after the last commit is written again.
//!
//! What may stop a worker and with which exit code: [`exit`].

pub mod args;
pub mod consumer;
pub mod control;
pub mod dead_letter;
pub mod decode;
pub mod engine;
pub mod exit;
pub mod extensions;
pub mod health;
pub mod kafka;
pub mod offsets;
pub mod pipeline;
pub mod process;
mod processing;
pub mod record;
pub mod retry;
pub mod secrets;
mod seeded_bugs;
pub mod settings;
#[cfg(feature = "kubernetes")]
pub mod status;
mod sync;
pub mod telemetry;
pub mod transaction;
pub mod transform;
pub mod writer;

pub use futures::future::BoxFuture;

pub use extensions::Extensions;
pub use process::run;
pub use record::{
    Chunk, Record,
    batch::{Batch, BatchBuilder, OutputRecord, Payload},
};
pub use transform::{Emitter, Transform, per_record};
pub use writer::{Rejected, WriteBatch, WriteError, Writer};

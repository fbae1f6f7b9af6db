//! A worker reads the partitions it is assigned, transforms and writes every record, and commits what is
//! finished. It is a binary (`kafka-consumer-worker`) and a library: [`run`] with [`Extensions`] is a worker
//! with custom transforms and writers.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use kafka_consumer_worker::{Extensions, Payload, per_record, run};
//!
//! fn main() -> ExitCode {
//!     let uppercase = |_config: &_| {
//!         Ok(per_record("uppercase", |record, output| {
//!             let value = record.value.unwrap_or_default().to_ascii_uppercase();
//!             output.emit(Payload::Keep, Payload::New(&value));
//!             Ok(())
//!         }))
//!     };
//!     run(Extensions::new().transform("uppercase", uppercase))
//! }
//! ```
//!
//! ```text
//!  Kafka ──> consumer (poll thread) ── Chunk: records of one partition, in order ──┐
//!    ^                                                                             v
//!    │                     decode ─> transforms ── Batch, split over lanes by `processing.ordering` ──┐
//!    │                                 │ failed                                                     v
//!    │                                 v                                      writers, every one of them
//!    │                              onExhausted: dead letter, skip or stop <── rejected ── │ ── transient: retry
//!    │                                                       │ confirmed                   │ confirmed
//!    └──── commit every commitInterval, at revoke and at shutdown <── offsets: first unfinished record ──┘
//! ```
//!
//! **What is committed when**: the offset of the first record that is not finished. A record is finished when
//! every writer has confirmed each output made from it, or the broker has confirmed its copy in the dead
//! letter topic, or a transform filtered it out, or `onExhausted: Skip` dropped and counted it. So a crash
//! loses nothing; records that were finished after the last commit are written again.
//!
//! # The rooms
//!
//! A room is a file here with its folder. It imports from lower floors only; `make lint` checks the table.
//!
//! ```text
//!  9  main  lib
//!  8  process                             command line -> exit code, signals, HTTP, status reporter
//!  7  engine                              builds the shared context, starts the poll thread
//!  6  settings  |  consumer               what the document means  |  the poll loop: read, dispatch, commit
//!  5  extensions  |  processing           custom transforms and writers  |  a partition's task and its lanes
//!  4  args  |  writer  |  pipeline  |  dead_letter
//!  3  transform  |  transaction  |  telemetry  |  status
//!  2  decode  |  kafka  |  offsets  |  health  |  seeded_bugs
//!  1  record  |  retry  |  secrets  |  control  |  exit
//!  0  sync                               locks; every room may import it
//! ```
#![warn(missing_docs)]
// Maintainers read the rooms with --document-private-items, where these links work.
#![allow(rustdoc::private_intra_doc_links)]

// Highest floor first. The rooms are public for this crate's own tests and for benchmarks; they are no API.
#[doc(hidden)]
pub mod process;

#[doc(hidden)]
pub mod engine;

#[doc(hidden)]
pub mod consumer;
#[doc(hidden)]
pub mod settings;

#[doc(hidden)]
pub mod extensions;
mod processing;

#[doc(hidden)]
pub mod args;
#[doc(hidden)]
pub mod dead_letter;
#[doc(hidden)]
pub mod pipeline;
#[doc(hidden)]
pub mod writer;

#[doc(hidden)]
#[cfg(feature = "kubernetes")]
pub mod status;
#[doc(hidden)]
pub mod telemetry;
#[doc(hidden)]
pub mod transaction;
#[doc(hidden)]
pub mod transform;

#[doc(hidden)]
pub mod decode;
#[doc(hidden)]
pub mod health;
#[doc(hidden)]
pub mod kafka;
#[doc(hidden)]
pub mod offsets;
mod seeded_bugs;

#[doc(hidden)]
pub mod control;
#[doc(hidden)]
pub mod exit;
#[doc(hidden)]
pub mod record;
#[doc(hidden)]
pub mod retry;
#[doc(hidden)]
pub mod secrets;
mod sync;

pub use futures::future::BoxFuture;

pub use extensions::Extensions;
pub use offsets::FinishedSet;
pub use process::run;
pub use record::{
    Chunk, Offset, Record, TopicPartition,
    batch::{
        Batch, OutputRecord,
        builder::{BatchBuilder, Payload},
    },
    failure::{Failure, Stage},
};
pub use transform::{Emitter, Transform, per_record};
pub use writer::{Rejected, WriteBatch, WriteError, Writer};

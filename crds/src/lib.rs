//! The contract: the `KafkaConsumerGroup` resource, the document the operator hands to its workers, and the
//! librdkafka properties both derive from it. Pure data and pure functions; this crate never talks to Kafka
//! or Kubernetes.
//!
//! ```text
//!  user ── KafkaConsumerGroup (spec) ──> operator ── WorkerConfig (ConfigMap) ──> worker
//!                    ^  status                                                      │
//!                    └── operator: everything but workers      status.workers[pod] ─┘
//! ```

pub mod client_config;
pub mod crd;
pub mod names;
pub mod spec;
pub mod status;
#[cfg(feature = "vrl")]
pub mod vrl_program;
pub mod worker_config;

pub use spec::{KafkaConsumerGroup, KafkaConsumerGroupSpec};
pub use status::KafkaConsumerGroupStatus;
pub use worker_config::WorkerConfig;

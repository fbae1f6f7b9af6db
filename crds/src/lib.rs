//! The contract between users, operator and workers: the resources (`KafkaConsumerGroup`, `KafkaOffsetReset`,
//! `KafkaReplay`), the configuration document that the operator writes for its workers, and the
//! librdkafka properties that both derive from the group. Pure data and pure functions: this crate never connects to Kafka or Kubernetes.
//!
//! ```text
//!  user ── KafkaConsumerGroup (spec) ──> operator ── WorkerConfig (ConfigMap) ──> worker
//!                    ^  status                                                      │
//!                    └── operator: all except workers          status.workers[pod] ─┘
//! ```
//!
//! Modules, from top to bottom. A module uses only modules of lower floors:
//!
//! | floor | module | what it holds |
//! |---|---|---|
//! | 3 | [`crd`] | the CustomResourceDefinitions as they are committed and installed |
//! | 3 | [`worker_config`] | the document that the operator renders and the worker reads |
//! | 3 | [`client_config`] | the librdkafka properties of a group |
//! | 3 | [`dead_letter`] | the headers of dead letters: names, forms, a parser |
//! | 2 | [`spec`] | the desired state, with the rules beside the fields |
//! | 2 | [`replay`] | the `KafkaReplay` resource |
//! | 1 | [`offset_reset`] | the `KafkaOffsetReset` resource |
//! | 1 | [`status`] | the observed state: conditions, lag, workers |
//! | 1 | [`incarnation`] | one run of a worker process: the `client.id` of its consumer |
//! | 1 | [`names`] | names, labels and paths that operator, worker, chart and tests share |
//! | 1 | [`postgres_url`] | the form of the connection URL of a Postgres writer |
//! | 1 | `vrl_program` | compiles VRL programs; feature `vrl` |

pub mod client_config;
pub mod crd;
pub mod dead_letter;
pub mod incarnation;
pub mod names;
pub mod offset_reset;
pub mod postgres_url;
pub mod replay;
pub mod spec;
pub mod status;
#[cfg(feature = "vrl")]
pub mod vrl_program;
pub mod worker_config;

pub use offset_reset::{KafkaOffsetReset, KafkaOffsetResetSpec, KafkaOffsetResetStatus};
pub use replay::{KafkaReplay, KafkaReplaySpec, KafkaReplayStatus};
pub use spec::{KafkaConsumerGroup, KafkaConsumerGroupSpec};
pub use status::KafkaConsumerGroupStatus;
pub use worker_config::WorkerConfig;

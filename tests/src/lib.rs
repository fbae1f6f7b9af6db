//! The harness of the end-to-end tests: a real Kubernetes, a real Kafka, a real PostgreSQL, the operator installed by
//! its own chart. A test is one call of [`scenario`], whose body gets a [`World`]: a namespace of its own, and everything
//! to act on the systems and to look at them from outside.
//!
//! Nothing here imitates a system, and no test skips itself: without the cluster's environment it fails and says how to
//! get one (`make test`, or `tests/cluster/exec.sh cargo test -p kafka-consumer-tests` with a cluster that is up).
//!
//! | module | what it gives |
//! |---|---|
//! | [`env`] | addresses and credentials of the cluster |
//! | [`world`] | the scenario: operator, namespace, cleaning up, what is printed on failure |
//! | [`wait`] | waiting for a state, bounded, telling what was seen last |
//! | [`kubernetes`] | kubectl, helm, the group's resource, its pods, killing them |
//! | [`audit`] | who wrote what to the API server |
//! | [`kafka`] | topics, producing, reading a topic to its end, offsets |
//! | [`load`] | orders with sequence numbers, and the ledger of those the broker has |
//! | [`check`] | the ledger against what arrived: lost, duplicated, reordered |
//! | [`consumer_groups`] | Kafka's own ConsumerGroupCommand, as a witness |
//! | [`postgres`] | tables and their rows |
//! | [`sink`] | an HTTP server behind an Http writer, which can be down |
//! | [`worker_pages`] | metrics, status and logs of workers |
//! | [`dry_run`] | what the API server says to a resource |
//! | [`local`] | the product's programs as processes, for local mode |
//! | [`ledger`] | records whose content follows from their position, and the log of acknowledged ones |
//! | [`checker`] | all that was seen of a run, judged: lost, repeated, reordered, committed too early ... |
//! | [`chaos`] | worker processes, killed, stopped and cut off while records flow |
//! | [`soak`] | the same at length: `make soak` |
//! | [`bench`] | no test: `make bench` |

pub mod audit;
pub mod bench;
pub mod chaos;
pub mod check;
pub mod checker;
#[cfg(test)]
mod cluster_scripts;
pub mod command;
pub mod consumer_groups;
pub mod dry_run;
pub mod env;
pub mod install;
pub mod kafka;
pub mod kubernetes;
pub mod ledger;
pub mod load;
pub mod local;
pub mod postgres;
mod process;
pub mod sink;
pub mod soak;
pub mod wait;
pub mod worker_pages;
pub mod world;

pub use check::{Verdict, check};
pub use env::Env;
pub use kafka::{Kafka, Message, Record};
pub use load::{Ledger, Load};
pub use wait::{until, until_within};
pub use world::{World, scenario};

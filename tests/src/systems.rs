//! The systems that tests act on and observe from outside, and the programs that they run. A file here
//! imports only files of this room.
//!
//! | module | what it contains |
//! |---|---|
//! | [`mod@env`] | addresses and credentials of the cluster |
//! | [`wait`] | bounded waits for a state; the error shows the last observation |
//! | [`command`] | running other programs to their end |
//! | `process` | child processes that end with this program, among them the worker |
//! | [`local`] | the product's programs as child processes, for local mode |
//! | [`local_workers`] | the workers of local mode: their partitions, their death |
//! | `random` | random numbers that follow from a seed |
//! | [`browser`] | a real browser, without a window |
//! | [`brokers`] | three brokers for one test, which stops, kills and freezes them |
//! | [`kafka`] | topics, produced and consumed records, offsets |
//! | [`consumer_groups`] | Kafka's own ConsumerGroupCommand, an independent view of a group |
//! | [`postgres`] | tables and their rows |
//! | [`http_sink`] | an HTTP server that an Http writer writes to, and that can be down |
//! | [`install`] | the operator, installed by Helm |
//! | [`world`] | the scenario: operator, namespace, cleanup, the report of a failure |
//! | [`kubernetes`] | kubectl, the group's resource, its pods, killing them |
//! | [`audit`] | who wrote what to the API server |
//! | [`dry_run`] | the API server's answer to a resource |
//! | [`worker_pages`] | metrics, status and logs of workers |

pub mod audit;
pub mod brokers;
pub mod browser;
#[cfg(test)]
mod cluster_scripts;
pub mod command;
pub mod consumer_groups;
pub mod dry_run;
pub mod env;
pub mod http_sink;
pub mod install;
pub mod kafka;
pub mod kubernetes;
pub mod local;
pub mod local_workers;
pub mod postgres;
pub(crate) mod process;

pub(crate) mod random;
pub mod wait;
pub mod worker_pages;
pub mod world;

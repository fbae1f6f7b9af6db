//! The operator: turns `KafkaConsumerGroup` resources into worker Deployments and reports their actual state
//! in the status. It also runs the same resources without Kubernetes.
//!
//! # Floors
//!
//! A file imports from its own room (the first path segment) and from floors below. No two files import each
//! other.
//!
//! ```text
//!  6  main  |  run  |  plugin
//!  5  args  |  operations               siblings
//!  4  controller  |  local                siblings: neither imports the other
//!  3  group  |  api                       group is pure: what the resource means; no kube::Client, no rdkafka
//!  2  telemetry  |  leader  |  compiler  |  reports
//!  1  kafka  |  digest
//!  0  sync                                every room may import it
//! ```
//!
//! | room | what it does |
//! |---|---|
//! | [`run`] | the command line from its start to its exit code |
//! | [`plugin`] | the kubectl plugin `kubectl kcg`: another program, which needs only the API server |
//! | [`args`] | flags and environment variables |
//! | [`controller`] | the Kubernetes controller: watches, reconciles, writes children and status |
//! | [`operations`] | resources that run once, such as a reset of offsets |
//! | [`local`] | the same resources as processes of one machine |
//! | [`api`] | the REST API and the dashboard: shows what others publish, passes on what users change |
//! | [`group`] | what a resource means: references, validation, topics, number of workers |
//! | [`telemetry`] | logs, probes, metrics |
//! | [`compiler`] | which VRL programs compile; in processes of their own |
//! | [`reports`] | what workers report at `/status` |
//! | [`leader`] | leader election by a Lease |
//! | [`kafka`] | what the operator reads from Kafka and changes there; its `model` is plain data |
//! | [`digest`] | a short hash, to notice changes |
//! | [`sync`] | locks that survive a panic |
//!
//! # A reconcile
//!
//! ```text
//!   watches: groups, children, pods, Secrets, ConfigMaps         every few seconds: Kafka
//!                      └──────────────┬───────────────────────────────┘
//!                                     v
//!   reconcile = dereference (client)  reads referenced objects, children, Kafka facts
//!            -> compile     (process) VRL programs that are not known yet
//!            -> validate    (pure)    ValidatedGroup, or a reason that a user can act on
//!            -> provision   (client)  topics with `provision`, start positions before the first worker
//!            -> decide      (pure)    scaling: how many workers, and why
//!            -> build       (pure)    Resources<Prepared>; cannot fail
//!            -> apply       (client)  Resources<Applied>; writes only what differs
//!            -> status      (pure + one patch when something changed)
//! ```

pub mod plugin;
pub mod run;

pub mod args;
pub mod operations;

pub mod controller;
pub mod local;

pub mod api;
pub mod group;

pub mod compiler;
pub mod leader;
pub mod reports;
pub mod telemetry;

pub mod kafka;

pub mod digest;
pub mod sync;

#[cfg(test)]
mod fixtures;

//! The operator: turns `KafkaConsumerGroup` resources into worker Deployments and tells in their status what is really
//! going on; runs the same resources without Kubernetes too.
//!
//! ```text
//!   watches: groups, children, pods, Secrets, ConfigMaps         every few seconds: Kafka
//!                      └──────────────┬───────────────────────────────┘
//!                                     v
//!   reconcile = dereference (client)  what the resource names: Secrets, ConfigMaps, children, Kafka facts
//!            -> validate    (pure)    ValidatedGroup, or a reason that a user can act on
//!            -> provision   (client)  topics asked for, start positions before the first worker
//!            -> decide      (pure)    scaling: how many workers, and why
//!            -> build       (pure)    Resources<Prepared>; cannot fail
//!            -> apply       (client)  Resources<Applied>; writes only what differs
//!            -> status      (pure + one patch when something changed)
//! ```

pub mod args;
pub mod controller;
pub mod digest;
pub mod group;
pub mod kafka;
pub mod leader;
pub mod local;
pub mod run;
pub mod sync;
pub mod telemetry;

#[cfg(test)]
mod fixtures;

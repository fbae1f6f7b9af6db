//! The end-to-end tests, in one program: separate ones would link the Kubernetes client ten times. They need
//! the cluster of `tests/cluster` (`make e2e`) and fail without it.

mod admission;
mod api;
mod broker_faults;
mod chaos;
mod dashboard;
mod dead_letters;
mod dead_workers;
mod exactly_once;
mod group_protocol;
mod hostile;
mod install;
mod kafka_facts;
mod kills;
mod lifecycle;
mod local_mode;
mod offset_reset;
mod operator_faults;
mod outage;
mod partitions;
mod recreated_topics;
mod replay;
mod security;

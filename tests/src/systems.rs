//! The systems that tests act on and observe from outside, and the programs that they run. A file here
//! imports only files of this room.

pub mod audit;
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
pub mod postgres;
pub(crate) mod process;

pub(crate) mod random;
pub mod wait;
pub mod worker_pages;
pub mod world;

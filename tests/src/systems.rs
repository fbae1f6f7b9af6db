//! The systems that tests act on and look at from outside, and the programs they run. A file here imports other files of
//! this room and nothing above it.

pub mod audit;
#[cfg(test)]
mod cluster_scripts;
pub mod command;
pub mod consumer_groups;
pub mod dry_run;
pub mod env;
pub mod install;
pub mod kafka;
pub mod kubernetes;
pub mod local;
pub mod postgres;
pub(crate) mod process;
pub mod sink;
pub mod wait;
pub mod worker_pages;
pub mod world;

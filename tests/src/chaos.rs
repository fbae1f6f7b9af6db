//! Real workers as bare processes, which are killed, stopped, frozen and disconnected while records flow, and
//! a verdict on every record. Needs only a Kafka broker, and PostgreSQL for some scenarios. A restart costs
//! no more than a process start, so a run can have many.
//!
//! A run: topics, feed, workers; then the faults, chosen by a seed, most of them only after every partition
//! has made progress since the previous one; then the remaining records; then [`crate::verify::checker`] gets
//! everything that was observed. In: a [`Site`] to run on and a [`Scenario`]. Out: an [`Outcome`], also if
//! promises are broken; an error only if the run itself failed.

mod cluster;
mod config;
mod fleet;
mod outage;
mod outcome;
mod output;
pub mod plan;
mod proxy;
pub mod report;
mod run;
mod scenario;
pub mod seeded_bugs;
mod site;
pub mod soak;
mod table;
mod witness;

pub use self::{
    outage::Outage,
    outcome::Outcome,
    plan::{Act, ClusterFault, Faults, Step},
    report::Row,
    run::run,
    scenario::{SESSION_OF_A_CLEAN_STOP, SESSION_OF_A_CRASH, Scenario},
    site::Site,
};

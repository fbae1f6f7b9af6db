//! The harness of the end-to-end tests: a real Kubernetes, a real Kafka, a real PostgreSQL, the operator installed by
//! its own chart. A test is one call of [`scenario`], whose body gets a [`World`]: a namespace of its own, and everything
//! to act on the systems and to look at them from outside.
//!
//! Nothing here imitates a system, and no test skips itself: without the cluster's environment it fails and says how to
//! get one (`make test`, or `tests/cluster/exec.sh cargo test -p kafka-consumer-tests` with a cluster that is up).
//!
//! Rooms from the ground up; each one imports only those above it in this table, and `chaos` and `bench` do not know each
//! other.
//!
//! | room | what it gives |
//! |---|---|
//! | [`systems`] | Kubernetes, Kafka, PostgreSQL, HTTP, programs: acting on them and looking at them |
//! | [`verify`] | records with a known content, the ledger of the acknowledged ones, the comparison with what arrived |
//! | [`chaos`] | worker processes, killed, stopped and cut off while records flow; `make soak` |
//! | [`bench`] | no test: `make bench` |

pub mod bench;
pub mod chaos;
pub mod systems;
pub mod verify;

pub use systems::{
    env::Env,
    kafka::{Kafka, Message, Record},
    wait::{until, until_within},
    world::{World, scenario},
};
pub use verify::{check::check, checker::Verdict, ledger::Ledger, load::Load};

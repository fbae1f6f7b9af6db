//! The harness of the end-to-end tests: a real Kubernetes, a real Kafka, a real PostgreSQL, and the operator,
//! installed by its own chart. A test is one call of [`scenario`]. Its body gets a [`World`]: a new
//! namespace, and the functions that act on the systems and observe them from outside.
//!
//! Nothing here imitates a system, and no test skips itself: without the environment of the cluster a test
//! fails, and the error says how to get one (`make test`, or `tests/cluster/exec.sh cargo test -p
//! kafka-consumer-tests` with a running cluster).
//!
//! The rooms, from the ground floor up. A room imports only rooms on floors above it in this table; `chaos`
//! and `bench` do not import each other.
//!
//! | room | what it contains |
//! |---|---|
//! | [`systems`] | Kubernetes, Kafka, PostgreSQL, HTTP, child processes: acting on them and observing them |
//! | [`verify`] | records with known content, the ledger of acknowledged ones, the check of what arrived |
//! | [`chaos`] | worker processes, killed, frozen and disconnected while records flow; `make soak` |
//! | [`mod@bench`] | measurements, not tests: `make bench`, `make bench-operator` |

pub mod bench;
pub mod chaos;
pub mod systems;
pub mod verify;

pub use systems::{
    env::Env,
    kafka::{Kafka, Message, Record},
    wait::{until, until_within},
    world::{World, alone, beside_others, scenario, scenario_alone},
};
pub use verify::{check::check, checker::Verdict, ledger::Ledger, load::Load};

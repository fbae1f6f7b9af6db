//! The REST API and the dashboard. In: what is known of the groups, as plain values on a [`board::Board`] that
//! local mode or the controller fills. Out: HTTP answers. Changes are [`command`]s for local mode, and requests
//! to the API server in the name of the user in a cluster. Reads from Kafka only dead letters, and from
//! Kubernetes only who sends a request, what they may do, and what they want to change. The payload of a record is
//! shown to those who have the right for it, and never logged.
//!
//! ```text
//!  local, controller ── board ──> routes (JSON) ──┐
//!                         └─────> watch (SSE) ────┼── caller (token, rights) ── guard (limits) ── server
//!  local <── command <──────────  PUT, POST ──────┤
//!  API server <── as the user <───────────────────┤
//!  Kafka <── dead_letters <── GET ────────────────┘
//! ```

pub mod board;
pub mod catch_up;
pub mod command;
pub mod model;
pub mod ownership;
pub mod places;
pub mod resource;
pub mod series;
pub mod unknown;

#[cfg(feature = "api")]
mod as_user;
#[cfg(feature = "api")]
mod caller;
#[cfg(feature = "api")]
pub mod cluster;
#[cfg(feature = "api")]
#[allow(
    unused_qualifications,
    reason = "utoipa's macros write the paths of types again"
)]
pub mod dead_letters;
#[cfg(feature = "api")]
mod guard;
#[cfg(feature = "api")]
mod list;
#[cfg(feature = "api")]
mod parameters;
#[cfg(feature = "api")]
mod patch;
#[cfg(feature = "api")]
mod problem;
#[cfg(feature = "api")]
#[allow(
    unused_qualifications,
    reason = "utoipa's macros write the paths of types again"
)]
mod routes;
#[cfg(feature = "api")]
pub mod server;
#[cfg(feature = "api")]
pub mod shared;
#[cfg(feature = "api")]
mod slow_readers;
#[cfg(feature = "api")]
mod static_files;
#[cfg(feature = "api")]
mod token;
#[cfg(feature = "api")]
#[allow(
    unused_qualifications,
    reason = "utoipa's macros write the paths of types again"
)]
mod watch;

#[cfg(all(test, feature = "api"))]
mod tests;

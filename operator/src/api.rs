//! The REST API and the dashboard. In: what is known of the groups, as plain values on a [`board::Board`] that
//! local mode fills. Out: HTTP answers, and [`command`]s that change a group. Reads nothing from Kafka
//! or Kubernetes itself, and never has the payload of a record.
//!
//! ```text
//!  local ── publish ──> board ──> routes (JSON) ──┐
//!    ^                    └─────> watch (SSE) ────┼──> guard (host, origin, limits) ──> server
//!    └──── command <────────────  PUT state ──────┘
//! ```

pub mod board;
pub mod command;
pub mod model;
pub mod series;

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
mod static_files;
#[cfg(feature = "api")]
#[allow(
    unused_qualifications,
    reason = "utoipa's macros write the paths of types again"
)]
mod watch;

#[cfg(all(test, feature = "api"))]
mod tests;

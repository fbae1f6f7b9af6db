//! Why a reconcile failed.

use std::time::Duration;

use thiserror::Error;

use super::apply::ApplyError;
use super::claims::ClaimError;
use super::dereference::DereferenceError;
use super::update_status::StatusError;

/// Timeout of one reconcile. Kafka alone may take 10 s for facts and 20 s for each of three changes; a longer
/// reconcile hangs and would keep its slot at the API server indefinitely.
pub const RECONCILE_TIMEOUT: Duration = Duration::from_secs(120);

/// Which stage failed. Errors that a user can fix are in the status too.
#[derive(Debug, Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error("the reconcile did not finish within {} s", RECONCILE_TIMEOUT.as_secs())]
    Timeout,
    #[error("the reconcile panicked: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl ReconcileError {
    /// Label of `kcg_reconcile_errors_total`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dereference(_) => "dereference",
            Self::Claim(_) => "claim",
            Self::Apply(error) => error.reason(),
            Self::Status(_) => "status",
            Self::Timeout => "timeout",
            Self::Task(_) => "panic",
        }
    }
}

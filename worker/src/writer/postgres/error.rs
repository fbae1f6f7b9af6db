//! Why a PostgreSQL writer cannot be created.

use crate::secrets::SecretError;

/// Why a PostgreSQL writer cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum NewPostgresError {
    /// The Secret with the URL is missing or unreadable.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The URL is invalid. The message does not show it, because it may contain the password.
    #[error("{0}")]
    Url(String),
}

//! Why a child could not be applied. Each error has a reason for conditions and metrics, and whether waiting helps.

use thiserror::Error;

/// Which step failed.
#[derive(Debug, Error)]
pub enum ApplyError {
    #[error("cannot read {kind} {name}: {source}")]
    Read {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("the API server does not take {kind} {name}: {source}")]
    Write {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("{kind} {name} is still there from a KafkaConsumerGroup of this name that was deleted")]
    Leftover { kind: &'static str, name: String },
    #[error(
        "{kind} {name} exists and does not belong to this KafkaConsumerGroup; delete it, or give the KafkaConsumerGroup another name"
    )]
    Conflict { kind: &'static str, name: String },
    #[error("the KafkaConsumerGroup is gone")]
    Gone,
    #[error("cannot seed spec.replicas through /scale: {0}")]
    Scale(Box<kube::Error>),
}

impl ApplyError {
    /// As it stands in a condition, and as a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "ReadFailed",
            Self::Write { .. } | Self::Scale(_) => "ApplyFailed",
            Self::Leftover { .. } => "WaitingForDeletion",
            Self::Conflict { .. } => "NameConflict",
            Self::Gone => "Gone",
        }
    }

    /// True when waiting will not help: the object itself was refused.
    pub fn needs_human(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } | Self::Scale(source) => {
                matches!(&**source, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
            }
            Self::Leftover { .. } | Self::Gone => false,
            Self::Conflict { .. } => true,
        }
    }
}

/// The object went away between two calls, which is never an error here.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

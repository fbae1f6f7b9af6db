//! Why a child could not be applied. Each error has a reason for conditions and metrics, and whether waiting
//! helps.

use thiserror::Error;

/// The failed step.
#[derive(Debug, Error)]
pub enum ApplyError {
    #[error("cannot read {kind} {name}: {source}")]
    Read {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("the API server refuses {kind} {name}: {source}")]
    Write {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error(
        "{kind} {name} still belongs to a deleted KafkaConsumerGroup of this name; the operator waits until Kubernetes has deleted it"
    )]
    Leftover { kind: &'static str, name: String },
    #[error(
        "{kind} {name} exists and does not belong to this KafkaConsumerGroup; delete it, or give the KafkaConsumerGroup another name"
    )]
    Conflict { kind: &'static str, name: String },
    #[error("the KafkaConsumerGroup was deleted")]
    Gone,
    #[error("cannot set the initial spec.replicas through /scale: {0}")]
    Scale(Box<kube::Error>),
}

impl ApplyError {
    /// The reason of a condition and the label of a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "ReadFailed",
            Self::Write { .. } | Self::Scale(_) => "ApplyFailed",
            Self::Leftover { .. } => "WaitingForDeletion",
            Self::Conflict { .. } => "NameConflict",
            Self::Gone => "Gone",
        }
    }

    /// True if waiting does not help because the API server refuses the object itself.
    pub fn needs_action(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } | Self::Scale(source) => {
                matches!(&**source, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
            }
            Self::Leftover { .. } | Self::Gone => false,
            Self::Conflict { .. } => true,
        }
    }
}

/// The object was deleted between two calls, which is never an error here.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

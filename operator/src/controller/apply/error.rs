//! Why a child could not be applied. Each error has a reason for conditions and metrics, and whether waiting
//! helps.

use std::collections::BTreeSet;

use thiserror::Error;

/// The failed step.
#[derive(Debug, Error)]
pub enum ApplyError {
    #[error("cannot read {kind} {name}: {}", in_words(source))]
    Read {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error(
        "the API server refuses {kind} {name}: {}{}",
        in_words(source),
        origin(source)
    )]
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
    #[error("cannot set spec.replicas through /scale: {}", in_words(.0))]
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

/// The message of the API server as it is. `kube::Error` would show it twice, the second time as Rust's debug
/// text.
pub fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => error.to_string(),
    }
}

/// Fields of a child, and where in the resource their values come from. The first that matches counts.
const ORIGINS: &[(&str, &str)] = &[
    ("spec.template.labels", "spec.worker.labels"),
    ("spec.template.metadata.labels", "spec.worker.labels"),
    ("spec.template.annotations", "spec.worker.annotations"),
    ("spec.template.metadata.annotations", "spec.worker.annotations"),
    ("spec.template.spec.volumes", "spec.worker.volumes"),
    (
        "spec.template.spec.imagePullSecrets",
        "spec.worker.imagePullSecrets",
    ),
    ("spec.template.spec.nodeSelector", "spec.worker.nodeSelector"),
    ("spec.template.spec.tolerations", "spec.worker.tolerations"),
    ("spec.template.spec.affinity", "spec.worker.affinity"),
    (
        "spec.template.spec.topologySpreadConstraints",
        "spec.worker.topologySpreadConstraints",
    ),
    (
        "spec.template.spec.priorityClassName",
        "spec.worker.priorityClassName",
    ),
    ("spec.template.spec.securityContext", "spec.worker.runAs"),
    ("spec.template.spec.containers[0].env", "spec.worker.env"),
    (
        "spec.template.spec.containers[0].volumeMounts",
        "spec.worker.volumeMounts",
    ),
    (
        "spec.template.spec.containers[0].resources",
        "spec.worker.resources",
    ),
    ("spec.template.spec.containers[0].image", "spec.worker.image"),
];

/// The fields of the resource that the refused values come from, as far as they are known.
fn origin(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else {
        return String::new();
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let origins: BTreeSet<&str> = causes
        .filter_map(|cause| ORIGINS.iter().find(|(field, _)| cause.field.starts_with(field)))
        .map(|(_, origin)| *origin)
        .collect();
    if origins.is_empty() {
        return String::new();
    }
    let origins: Vec<&str> = origins.into_iter().collect();
    format!("; correct {}", origins.join(" and "))
}

/// The object was deleted between two calls, which is never an error here.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_shown_once_in_the_words_of_the_api_server_with_the_field_of_the_resource() {
        let message =
            "Deployment.apps \"orders-worker\" is invalid: spec.template.labels: Invalid value: \"a b\"";
        let status = serde_json::json!({
            "status": "Failure", "message": message, "reason": "Invalid", "code": 422,
            "details": {"causes": [{"field": "spec.template.labels", "message": "", "reason": "FieldValueInvalid"}]},
        });
        let source = Box::new(kube::Error::Api(serde_json::from_value(status).unwrap()));
        let error = ApplyError::Write {
            kind: "Deployment",
            name: "orders-worker".into(),
            source,
        };
        assert!(error.needs_action());
        assert_eq!(
            error.to_string(),
            format!("the API server refuses Deployment orders-worker: {message}; correct spec.worker.labels")
        );
    }
}

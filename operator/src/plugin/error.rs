//! What can go wrong, in words for the user. In: errors of the client. Out: what is wrong and what to do. The API
//! server's own words are kept. Never has Debug text.

use std::error::Error as _;
use std::io;

use kube::core::Status;

/// Why a command ends with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use the kubeconfig: {0}; choose one with --kubeconfig, or a context with --context")]
    Kubeconfig(String),
    #[error("the API server {server} cannot be reached: {cause}")]
    Unreachable { server: String, cause: String },
    #[error(
        "the API server did not answer within {seconds} s; for a change, look whether it has happened before you repeat it"
    )]
    NoAnswer { seconds: u64 },
    #[error("the API server refuses: {message}{hint}")]
    Refused {
        code: u16,
        message: String,
        hint: String,
    },
    #[error(
        "this cluster has no resource {0}: the Kafka Consumer Operator is not installed in it, or only in part; check the context, or install the operator with its CRDs (README.md of its repository)"
    )]
    NotInstalled(String),
    #[error("{0}")]
    NotFound(String),
    /// What the user wants cannot be done.
    #[error("{0}")]
    Impossible(String),
    #[error(
        "cannot read the answer of the API server: {0}; use the version of the plugin that matches the operator"
    )]
    Unreadable(String),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// Of a request.
    pub fn of(error: kube::Error, server: &str, verb: &str, path: &str) -> Self {
        match error {
            kube::Error::Api(status) => Self::refused(&status, verb, path),
            kube::Error::SerdeError(error) => Self::Unreadable(error.to_string()),
            error => Self::Unreachable {
                server: server.into(),
                cause: chain(&error),
            },
        }
    }

    fn refused(status: &Status, verb: &str, path: &str) -> Self {
        let target = ResourcePath::of(path);
        if status.code == 404 {
            let named = status
                .details
                .as_ref()
                .is_some_and(|details| !details.name.is_empty());
            return match &target {
                Some(target) if target.is_ours() && !named => Self::NotInstalled(target.resource()),
                _ => Self::NotFound(format!("the API server says: {}", status.message)),
            };
        }
        let hint = match (status.code, target) {
            (403, Some(target)) => format!("; {}", target.missing_right(verb)),
            (401, _) => "; the login of the kubeconfig is missing, wrong or expired".into(),
            _ => String::new(),
        };
        Self::Refused {
            code: status.code,
            message: status.message.clone(),
            hint,
        }
    }

    /// Whether the same request can succeed in a moment: the API server restarts, is busy, or the network fails.
    pub fn can_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoAnswer { .. } => true,
            Self::Refused { code, .. } => matches!(code, 429 | 500..=599),
            _ => false,
        }
    }

    /// Whether a change may have happened despite this error.
    pub fn leaves_open(&self) -> bool {
        self.can_pass() && !matches!(self, Self::Refused { code: 429, .. })
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

/// All causes, from the outside to the inside, without repetitions.
fn chain(error: &kube::Error) -> String {
    // The outermost text only names the variant.
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&message);
        }
        cause = error.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

/// What a path of the API server names.
struct ResourcePath {
    group: String,
    namespace: Option<String>,
    plural: String,
    subresource: Option<String>,
}

impl ResourcePath {
    fn of(path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or_default();
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next()? {
            "api" => String::new(),
            "apis" => parts.next()?.to_string(),
            _ => return None,
        };
        let _version = parts.next()?;
        let mut rest: Vec<&str> = parts.collect();
        let namespace = (rest.first() == Some(&"namespaces") && rest.len() > 2).then(|| {
            let namespace = rest[1].to_string();
            rest.drain(..2);
            namespace
        });
        Some(Self {
            group,
            namespace,
            plural: (*rest.first()?).to_string(),
            subresource: rest.get(2).map(|name| (*name).to_string()),
        })
    }

    fn is_ours(&self) -> bool {
        self.group == crds::names::API_GROUP
    }

    fn resource(&self) -> String {
        match self.group.is_empty() {
            true => self.plural.clone(),
            false => format!("{}.{}", self.plural, self.group),
        }
    }

    fn missing_right(&self, verb: &str) -> String {
        let subresource = |before: &str| {
            let name = self.subresource.as_deref();
            name.map(|name| format!("{before}{name}")).unwrap_or_default()
        };
        let (place, flag) = match &self.namespace {
            Some(namespace) => (format!("in namespace {namespace}"), format!("-n {namespace}")),
            None => ("in all namespaces".into(), "-A".into()),
        };
        format!(
            "you need the right to {verb} {}{} {place}; check it with: kubectl auth can-i {verb} {}{} {flag}",
            self.resource(),
            subresource("/"),
            self.resource(),
            subresource(" --subresource="),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: Status, verb: &str, path: &str) -> Error {
        Error::of(kube::Error::Api(Box::new(status)), "api:6443", verb, path)
    }

    fn refused(code: u16, details: serde_json::Value, verb: &str, path: &str) -> String {
        let status =
            json!({"code": code, "message": "as the server says", "reason": "R", "details": details});
        let status: Status = serde_json::from_value(status).unwrap();
        of(status, verb, path).to_string()
    }

    #[test]
    fn a_missing_right_is_named_with_the_command_that_checks_it() {
        let path = "/apis/kafka-consumer.dev/v1alpha1/namespaces/shop/kafkaconsumergroups/orders/scale?x=y";
        assert_eq!(
            refused(403, json!({}), "patch", path),
            "the API server refuses: as the server says; you need the right to patch kafkaconsumergroups.kafka-consumer.dev/scale in namespace shop; check it with: kubectl auth can-i patch kafkaconsumergroups.kafka-consumer.dev --subresource=scale -n shop"
        );
        let all = refused(403, json!({}), "list", "/api/v1/pods");
        assert!(all.ends_with("kubectl auth can-i list pods -A"), "{all}");
    }

    #[test]
    fn only_errors_of_a_moment_can_pass_and_only_a_refusal_in_time_says_that_nothing_changed() {
        for (code, can_pass, leaves_open) in [
            (401, false, false),
            (403, false, false),
            (404, false, false),
            (409, false, false),
            (422, false, false),
            (429, true, false),
            (500, true, true),
            (503, true, true),
            (504, true, true),
        ] {
            let status =
                serde_json::from_value(json!({"code": code, "message": "m", "reason": "R"})).unwrap();
            let error = of(status, "create", "/api/v1/pods");
            assert_eq!(
                (error.can_pass(), error.leaves_open()),
                (can_pass, leaves_open),
                "{code}"
            );
        }
        let broken = Error::Unreachable {
            server: "api:6443".into(),
            cause: "reset by peer".into(),
        };
        assert!(broken.can_pass() && broken.leaves_open());
        assert!(!Error::Impossible("x".into()).can_pass());
    }

    #[test]
    fn a_cluster_without_the_crd_is_told_from_a_missing_group() {
        let path = "/apis/kafka-consumer.dev/v1alpha1/namespaces/shop/kafkaconsumergroups/orders";
        let no_crd = refused(404, json!({}), "get", path);
        assert!(no_crd.contains("not installed"), "{no_crd}");
        let missing = refused(404, json!({"name": "orders"}), "get", path);
        assert_eq!(missing, "the API server says: as the server says");
    }

    #[test]
    fn the_servers_words_are_kept_and_nothing_is_debug_text() {
        let conflict = refused(409, json!({}), "patch", "/api/v1/pods");
        assert_eq!(conflict, "the API server refuses: as the server says");
        assert!(refused(401, json!({}), "get", "/version").contains("expired"));
    }
}

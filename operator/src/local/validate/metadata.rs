//! Checks apiVersion and metadata, which the schema of a CRD does not describe.

use serde_json::Value;

use super::field_error::FieldError;
use super::hint;

const API_VERSION: &str = "kafka-consumer.dev/v1alpha1";
const FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

pub(super) fn check(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut say = |path: &str, message: String| {
        errors.push(FieldError {
            path: path.into(),
            message,
        })
    };
    match object.get("apiVersion").and_then(Value::as_str) {
        Some(API_VERSION) => {}
        Some(other) => say(
            "apiVersion",
            format!("Invalid value: \"{other}\": write {API_VERSION}"),
        ),
        None => say("apiVersion", format!("Required value: write {API_VERSION}")),
    }
    let Some(metadata) = object.get("metadata").and_then(Value::as_object) else {
        say(
            "metadata",
            "Required value: for example metadata: {name: orders}".into(),
        );
        return errors;
    };
    for field in metadata.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
        let mut message = format!("unknown field \"metadata.{field}\"");
        if let Some(near) = hint::nearest(field, FIELDS.iter().copied()) {
            message.push_str(&format!("; did you mean \"metadata.{near}\"?"));
        }
        say("", message);
    }
    match metadata.get("name").map(|name| (name.as_str(), name)) {
        Some((Some(name), _)) if is_subdomain(name) => {}
        Some((Some(name), _)) => say(
            "metadata.name",
            format!(
                "Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character, at most 253 of them, for example \"orders\""
            ),
        ),
        Some((None, other)) => {
            say(
                "metadata.name",
                format!("Invalid value: {other}: must be a string; quote it"),
            );
        }
        None => say(
            "metadata.name",
            "Required value: for example metadata: {name: orders}".into(),
        ),
    }
    if let Some(namespace) = metadata.get("namespace")
        && !namespace.as_str().is_some_and(is_label)
    {
        say(
            "metadata.namespace",
            format!(
                "Invalid value: {namespace}: a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', at most 63 of them"
            ),
        );
    }
    for field in ["labels", "annotations"] {
        for (key, value) in metadata
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if !value.is_string() {
                say(
                    &format!("metadata.{field}.{key}"),
                    format!("Invalid value: {value}: must be a string; quote it"),
                );
            }
        }
    }
    errors
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|part| is_part(part, 253))
}

fn is_label(name: &str) -> bool {
    is_part(name, 63)
}

fn is_part(part: &str, longest: usize) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=longest).contains(&part.len())
        && part.chars().all(inner)
        && !part.starts_with('-')
        && !part.ends_with('-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_follow_kubernetes() {
        for good in ["orders", "a.b-c", "0"] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", "Orders", "-a", "a-", "a..b", "a_b", &"a".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
    }

    #[test]
    fn every_error_says_what_to_write() {
        let errors = check(&json!({
            "apiVersion": "v1", "metadata": {"name": "Orders", "namespace": "a.b", "label": {}, "labels": {"a": 1}}
        }));
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for part in [
            "apiVersion: Invalid value: \"v1\": write kafka-consumer.dev/v1alpha1",
            "metadata.name: Invalid value: \"Orders\"",
            "metadata.namespace: Invalid value",
            "did you mean \"metadata.labels\"?",
            "metadata.labels.a: Invalid value: 1",
        ] {
            assert!(
                found.iter().any(|found| found.contains(part)),
                "{part} not in {found:#?}"
            );
        }
        assert_eq!(check(&json!({})).len(), 2);
    }
}

//! Compares the desired object with the live one as JSON, so that defaults of the API server do not count as
//! differences. Pure.

use serde_json::{Map, Value};

use crate::digest::hash;

/// True if `live` contains everything in `desired`. Together with the hash annotation in `desired` that
/// means: `desired` was applied last, and none of it has been changed since.
pub fn contains(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            desired.iter().all(|(key, value)| match live.get(key) {
                Some(live) => contains(live, value),
                // The API server omits empty values.
                None => is_empty(value),
            })
        }
        (Value::Array(live), Value::Array(desired)) => {
            let ordered = desired.iter().all(|value| !value.is_object());
            if ordered {
                live.len() == desired.len()
                    && live
                        .iter()
                        .zip(desired)
                        .all(|(live, desired)| contains(live, desired))
            } else {
                // Lists of objects are keyed; other controllers may add elements (sidecars), and the order is
                // irrelevant.
                desired
                    .iter()
                    .all(|desired| live.iter().any(|live| contains(live, desired)))
            }
        }
        _ => live == desired,
    }
}

/// Maximum number of fields that [`differences`] lists.
const MAX_DIFFERENCES: usize = 4;

/// Paths of the first fields of `desired` that `live` does not contain, such as `spec.replicas`.
pub fn differences(live: &Value, desired: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(live, desired, "", &mut found);
    found.truncate(MAX_DIFFERENCES);
    found
}

fn collect(live: &Value, desired: &Value, path: &str, found: &mut Vec<String>) {
    let (Value::Object(live), Value::Object(desired)) = (live, desired) else {
        if !contains(live, desired) {
            found.push(path.to_string());
        }
        return;
    };
    for (key, value) in desired {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match live.get(key) {
            Some(live) => collect(live, value, &path, found),
            None if is_empty(value) => {}
            None => found.push(path),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
    }
}

/// Changes with any change of the object, except its status and the bookkeeping of the API server.
pub fn fingerprint(live: &Value) -> String {
    let mut live = live.clone();
    if let Value::Object(object) = &mut live {
        object.remove("status");
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            for field in ["managedFields", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
            if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
                // Maintained by the Deployment controller.
                annotations.remove("deployment.kubernetes.io/revision");
            }
        }
    }
    hash(
        Value::Object(Map::from_iter([("live".to_string(), live)]))
            .to_string()
            .as_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::apply::desired_json;
    use super::super::build::build;
    use super::super::names::APPLIED_HASH_ANNOTATION;
    use super::*;
    use crate::fixtures::validated;
    use crate::group::observed::StartedTopics;
    use crate::group::scaling::{Decision, Limit};
    use serde_json::json;

    fn desired(replicas: i32) -> Value {
        let decision = Decision {
            replicas,
            recommended: None,
            limited_by: Limit::None,
            reason: String::new(),
        };
        desired_json(build(&validated(), &decision, &StartedTopics::default(), None).deployment)
    }

    /// The object as the API server returns it: with defaults and bookkeeping.
    fn live() -> Value {
        let mut live = desired(3);
        live["metadata"]["resourceVersion"] = json!("7");
        live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("1");
        live["spec"]["progressDeadlineSeconds"] = json!(600);
        live["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
        live["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["successThreshold"] = json!(1);
        live["status"] = json!({"replicas": 3});
        live
    }

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        assert!(contains(&live(), &desired(3)));
    }

    #[test]
    fn edits_by_others_are_differences() {
        let edits: &[fn(&mut Value)] = &[
            |live| live["spec"]["replicas"] = json!(1),
            |live| live["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other"),
            |live| live["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["--other"]),
            |live| live["spec"]["template"]["spec"]["securityContext"] = json!({}),
            |live| live["spec"]["template"]["spec"]["volumes"] = json!([]),
            |live| {
                live["metadata"]["labels"].as_object_mut().unwrap().clear();
            },
            |live| live["metadata"]["ownerReferences"] = json!([]),
        ];
        for (index, edit) in edits.iter().enumerate() {
            let mut live = live();
            edit(&mut live);
            assert!(!contains(&live, &desired(3)), "edit {index} was not detected");
        }
    }

    #[test]
    fn differences_name_the_fields() {
        let mut live = live();
        assert!(differences(&live, &desired(3)).is_empty());
        live["spec"]["replicas"] = json!(1);
        live["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
        live["metadata"]["labels"].as_object_mut().unwrap().clear();
        let found = differences(&live, &desired(3));
        assert_eq!(found.len(), 4);
        assert!(found[0].starts_with("metadata.labels."), "{found:?}");
        live["metadata"]["labels"] = desired(3)["metadata"]["labels"].clone();
        assert_eq!(
            differences(&live, &desired(3)),
            ["spec.replicas", "spec.template.spec.containers"]
        );
    }

    #[test]
    fn a_changed_spec_is_a_difference_even_if_it_only_removes_something() {
        assert!(!contains(&live(), &desired(4)));
        let mut live = live();
        live["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
        live["metadata"]["annotations"][APPLIED_HASH_ANNOTATION] = json!("hash with nodeSelector");
        assert!(!contains(&live, &desired(3)));
    }

    #[test]
    fn fingerprints_ignore_status_and_detect_edits() {
        let before = fingerprint(&live());
        let mut status = live();
        status["status"]["replicas"] = json!(2);
        status["metadata"]["resourceVersion"] = json!("8");
        assert_eq!(before, fingerprint(&status));
        let mut edited = live();
        edited["spec"]["paused"] = json!(true);
        assert_ne!(before, fingerprint(&edited));
    }
}

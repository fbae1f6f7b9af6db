//! Settings of worker pods that are valid, and those that are refused with the name of their field.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn problem(worker: Value) -> String {
    let worker: Worker = serde_json::from_value(worker).unwrap();
    check(&worker).map_or_else(|rejection| rejection.message, |()| String::new())
}

#[test]
fn ordinary_settings_are_valid() {
    let worker = json!({
        "labels": {"team": "shop", "example.com/tier": ""},
        "annotations": {"sidecar.istio.io/inject": "false", "note": "free text: ä", "app.kubernetes.io/name": "shop"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "env": [{"name": "A", "value": "1"}, {"name": "B.c-d", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "s", "secret": {"secretName": "a.b"}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/data/b"}],
        "imagePullSecrets": [{"name": "registry"}],
        "resources": {"requests": {"cpu": "100m", "memory": "1e8"}, "limits": {"cpu": "1.5", "memory": "128Mi"}},
        "priorityClassName": "high",
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}},
    });
    assert_eq!(problem(worker), "");
}

#[test]
fn each_defect_names_its_field() {
    for (worker, field, part) in [
        (json!({"labels": {"team": "a b"}}), "labels", "\"a b\" of team"),
        (json!({"labels": {"a/b/c": "x"}}), "labels", "\"a/b/c\""),
        (json!({"labels": {"": "x"}}), "labels", "no valid name"),
        (json!({"labels": {"x": "y".repeat(64)}}), "labels", "at most 63"),
        (
            json!({"labels": {"app.kubernetes.io/name": "x"}}),
            "labels",
            "reserved",
        ),
        (
            json!({"labels": {"pod-template-hash": "x"}}),
            "labels",
            "reserved",
        ),
        (json!({"annotations": {"Ä": "x"}}), "annotations", "no valid name"),
        (
            json!({"annotations": {"kafka-consumer.dev/config-hash": "x"}}),
            "annotations",
            "reserved",
        ),
        (
            json!({"annotations": {"a": "x".repeat(200_000)}}),
            "annotations",
            "200001 bytes",
        ),
        (
            json!({"serviceAccount": {"labels": {"a": "b c"}}}),
            "serviceAccount.labels",
            "label value",
        ),
        (
            json!({"serviceAccount": {"annotations": {"-": ""}}}),
            "serviceAccount.annotations",
            "no valid",
        ),
        (
            json!({"nodeSelector": {"a": "b/c"}}),
            "nodeSelector",
            "label value",
        ),
        (
            json!({"env": [{"name": "A"}, {"name": "A"}]}),
            "env",
            "\"A\" occurs twice",
        ),
        (json!({"env": [{"name": "POD_NAME"}]}), "env", "reserved"),
        (json!({"env": [{"name": "KCW_CONFIG"}]}), "env", "reserved"),
        (json!({"env": [{"name": "A=B"}]}), "env", "without '='"),
        (
            json!({"env": [{"name": "A", "value": "x".repeat(70_000)}]}),
            "env",
            "longer than",
        ),
        (
            json!({"env": [{"name": "A", "value": "1", "valueFrom": {}}]}),
            "env",
            "both",
        ),
        (
            json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]}),
            "volumes",
            "twice",
        ),
        (
            json!({"volumes": [{"name": "kcg-tmp", "emptyDir": {}}]}),
            "volumes",
            "reserved",
        ),
        (
            json!({"volumes": [{"name": "a", "emptyDir": {"sizeLimit": "1 GB"}}]}),
            "volumes",
            "no quantity",
        ),
        (
            json!({"volumes": [{"name": "a", "secret": {"secretName": "A_b"}}]}),
            "volumes",
            "no valid name of",
        ),
        (
            json!({"volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/a"}]}),
            "volumeMounts",
            "twice",
        ),
        (
            json!({"volumeMounts": [{"name": "a", "mountPath": "/etc/./kafka-consumer"}]}),
            "volumeMounts",
            "no plain path",
        ),
        (
            json!({"volumeMounts": [{"name": "a", "mountPath": "//etc/x"}]}),
            "volumeMounts",
            "no plain path",
        ),
        (
            json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
            "imagePullSecrets",
            "twice",
        ),
        (
            json!({"imagePullSecrets": [{}]}),
            "imagePullSecrets",
            "no valid name of",
        ),
        (
            json!({"priorityClassName": "High Prio"}),
            "priorityClassName",
            "no valid name of",
        ),
        (json!({"image": "a b"}), "image", "no image"),
        (
            json!({"resources": {"limits": {"memory": "128 Mi"}}}),
            "resources",
            "\"memory\": \"128 Mi\"",
        ),
        (
            json!({"resources": {"limits": {"cpu": "-1"}}}),
            "resources",
            "no quantity",
        ),
        (
            json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1900m"}}}),
            "resources",
            "the request 2 is greater than the limit 1900m",
        ),
    ] {
        let message = problem(worker);
        assert!(
            message.starts_with(&format!("spec.worker.{field}: ")),
            "{field}: {message}"
        );
        assert!(message.contains(part), "{message} lacks {part}");
        assert!(message.len() < 400, "{message}");
    }
}

proptest! {
    /// Whatever a user writes: an answer, never a panic, and no message longer than a paragraph.
    #[test]
    fn hostile_text_is_answered(text in ".{0,400}", other in "[a-z\\.\\-/ =:0-9A-Z_]{0,80}", repeat in 1..4usize) {
        for value in [text.repeat(repeat), other] {
            let workers = [
                json!({"labels": {value.clone(): value.clone()}}),
                json!({"annotations": {value.clone(): value.clone()}}),
                json!({"nodeSelector": {"a": value.clone()}}),
                json!({"env": [{"name": value.clone(), "value": value.clone()}, {"name": value.clone()}]}),
                json!({"volumes": [{"name": value.clone(), "emptyDir": {"sizeLimit": value.clone()}}]}),
                json!({"volumes": [{"name": "a", "configMap": {"name": value.clone()}}]}),
                json!({"volumeMounts": [{"name": value.clone(), "mountPath": value.clone()}]}),
                json!({"imagePullSecrets": [{"name": value.clone()}]}),
                json!({"resources": {"requests": {"cpu": value.clone()}, "limits": {"cpu": value.clone()}}}),
                json!({"image": value.clone(), "priorityClassName": value.clone()}),
            ];
            for worker in workers {
                prop_assert!(problem(worker).len() < 1200);
            }
        }
    }
}

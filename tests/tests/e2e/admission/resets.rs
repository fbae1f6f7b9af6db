//! What the API server refuses of a KafkaOffsetReset: at least one resource for each CEL rule that breaks it.

use anyhow::Result;
use harness::World;
use serde_json::{Value, json};

use super::cases::Case;

/// The file of the CRD.
pub const FILE: &str = "kafkaoffsetresets.yaml";
/// Part of the message of the only rule about changes.
pub const IMMUTABLE: &str = "a KafkaOffsetReset cannot be changed";

/// A reset to Earliest with these changes of its spec.
pub fn manifest(world: &World, changes: Value) -> Value {
    let mut spec = json!({"groupRef": {"name": "orders"}, "to": {"type": "Earliest"}});
    harness::systems::kubernetes::merge(&mut spec, changes);
    json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1", "kind": "KafkaOffsetReset",
        "metadata": {"name": "again", "namespace": world.namespace},
        "spec": spec,
    })
}

/// A reset with as many fields as fit together.
pub fn complete(world: &World) -> Value {
    let spec = json!({
        "to": {"type": "Timestamp", "timestamp": "2026-01-31T00:00:00+01:00"},
        "topics": [{"topic": "orders", "partitions": [0, 1]}],
        "dryRun": true, "stopGroup": true, "ttlSecondsAfterFinished": 3600,
    });
    manifest(world, spec)
}

pub fn cases() -> Vec<Case> {
    let to = |to: Value| json!({"to": to});
    let offset = json!([{"topic": "orders", "partition": 0, "offset": 7}]);
    vec![
        Case(
            "a time that is missing",
            to(json!({"type": "Timestamp"})),
            "spec.to",
            "timestamp is required with type Timestamp",
        ),
        Case(
            "a time that is not used",
            to(json!({"timestamp": "2026-01-31T00:00:00Z"})),
            "spec.to",
            "not allowed with other types",
        ),
        Case(
            "offsets that are missing",
            to(json!({"type": "Offsets"})),
            "spec.to",
            "offsets is required with type Offsets",
        ),
        Case(
            "offsets that are not used",
            to(json!({"offsets": offset})),
            "spec.to",
            "offsets is required with type Offsets, and not allowed",
        ),
        Case(
            "a number that is missing",
            to(json!({"type": "Shift"})),
            "spec.to",
            "by is required with type Shift",
        ),
        Case(
            "a number that is not used",
            to(json!({"by": -3})),
            "spec.to",
            "by is required with type Shift, and not allowed",
        ),
        Case(
            "a shift by nothing",
            to(json!({"type": "Shift", "by": 0})),
            "spec.to",
            "by is 0, which changes nothing",
        ),
        Case(
            "offsets beside topics",
            json!({"to": {"type": "Offsets", "offsets": offset}, "topics": [{"topic": "orders"}]}),
            "spec",
            "topics is not allowed with to.type Offsets",
        ),
    ]
}

/// Each field of a reset that exists.
pub async fn cannot_change(world: &World) -> Result<Vec<String>> {
    world.apply(&complete(world).to_string()).await?;
    let mut faults = Vec::new();
    for (what, change) in [
        ("dryRun", json!({"dryRun": false})),
        ("the group", json!({"groupRef": {"name": "returns"}})),
        (
            "the target",
            json!({"to": {"type": "Earliest", "timestamp": null}}),
        ),
        ("the topics", json!({"topics": null})),
        ("the time to live", json!({"ttlSecondsAfterFinished": 1})),
    ] {
        let patch = json!({"spec": change}).to_string();
        let output = world
            .kubectl(&["patch", "kor", "again", "--type=merge", "-p", &patch], None)
            .await?;
        if output.success || !output.stderr.contains(IMMUTABLE) {
            faults.push(format!("{what} is changed: {}{}", output.stdout, output.stderr));
        }
    }
    // Applying it again changes nothing, which is allowed.
    world.apply(&complete(world).to_string()).await?;
    Ok(faults)
}

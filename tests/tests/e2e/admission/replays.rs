//! What the API server refuses of a KafkaReplay: at least one resource for each CEL rule that breaks it.

use anyhow::Result;
use harness::World;
use serde_json::{Value, json};

use super::cases::Case;

/// The file of the CRD.
pub const FILE: &str = "kafkareplays.yaml";
/// Part of the message of the only rule about changes.
pub const IMMUTABLE: &str = "a KafkaReplay cannot be changed";

/// A replay from the start with these changes of its spec.
pub fn manifest(world: &World, changes: Value) -> Value {
    let mut spec = json!({"groupRef": {"name": "orders"}, "from": {"type": "Earliest"}});
    harness::systems::kubernetes::merge(&mut spec, changes);
    json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1", "kind": "KafkaReplay",
        "metadata": {"name": "again", "namespace": world.namespace},
        "spec": spec,
    })
}

/// A replay with as many fields as fit together.
pub fn complete(world: &World) -> Value {
    let spec = json!({
        "from": {"type": "Timestamp", "timestamp": "2026-01-31T00:00:00+01:00"},
        "to": {"type": "Timestamp", "timestamp": "2026-01-31T00:00:00Z"},
        "topics": [{"topic": "orders", "partitions": [0, 1]}],
        "writers": ["copy"], "recordsPerSecond": 100, "workers": 2,
        "dryRun": true, "ttlSecondsAfterFinished": 3600,
    });
    manifest(world, spec)
}

pub fn cases() -> Vec<Case> {
    let offset = json!([{"topic": "orders", "partition": 0, "offset": 7}]);
    let mut cases = Vec::new();
    for (bound, other, field) in [("from", "Earliest", "spec.from"), ("to", "Latest", "spec.to")] {
        let of = |value: Value| json!({bound: value});
        cases.extend([
            Case(
                "a time that is missing",
                of(json!({"type": "Timestamp"})),
                field,
                "timestamp is required with type Timestamp",
            ),
            Case(
                "a time that is not used",
                of(json!({"type": other, "timestamp": "2026-01-31T00:00:00Z"})),
                field,
                "timestamp is required with type Timestamp, and not allowed with other types",
            ),
            Case(
                "offsets that are missing",
                of(json!({"type": "Offsets"})),
                field,
                "offsets is required with type Offsets",
            ),
            Case(
                "offsets that are not used",
                of(json!({"type": other, "offsets": offset})),
                field,
                "offsets is required with type Offsets, and not allowed with other types",
            ),
            Case(
                "offsets beside topics",
                json!({bound: {"type": "Offsets", "offsets": offset}, "topics": [{"topic": "orders"}]}),
                "spec",
                "topics is not allowed with type Offsets in from or to",
            ),
        ]);
    }
    let time = |time: &str| json!({"type": "Timestamp", "timestamp": time});
    // The same time in two zones, and an end before the start.
    for to in ["2026-01-31T00:00:00Z", "2026-01-30T23:59:59Z"] {
        cases.push(Case(
            "an end that is not after the start",
            json!({"from": time("2026-01-31T01:00:00+01:00"), "to": time(to)}),
            "spec",
            "from.timestamp must be before to.timestamp",
        ));
    }
    cases
}

/// Each field of a replay that exists.
pub async fn cannot_change(world: &World) -> Result<Vec<String>> {
    world.apply(&complete(world).to_string()).await?;
    let mut faults = Vec::new();
    for (what, change) in [
        ("dryRun", json!({"dryRun": false})),
        ("the group", json!({"groupRef": {"name": "returns"}})),
        (
            "the start",
            json!({"from": {"type": "Earliest", "timestamp": null}}),
        ),
        ("the end", json!({"to": null})),
        ("the topics", json!({"topics": null})),
        ("the writers", json!({"writers": null})),
        ("the rate", json!({"recordsPerSecond": 7})),
        ("the workers", json!({"workers": 7})),
        ("the time to live", json!({"ttlSecondsAfterFinished": 1})),
    ] {
        let patch = json!({"spec": change}).to_string();
        let output = world
            .kubectl(&["patch", "krp", "again", "--type=merge", "-p", &patch], None)
            .await?;
        if output.success || !output.stderr.contains(IMMUTABLE) {
            faults.push(format!("{what} is changed: {}{}", output.stdout, output.stderr));
        }
    }
    // Applying it again changes nothing, which is allowed.
    world.apply(&complete(world).to_string()).await?;
    Ok(faults)
}

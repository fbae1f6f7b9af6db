//! The configuration document of the workers of a run.

use anyhow::{Context, Result};
use crds::{WorkerConfig, spec::KafkaConsumerGroupSpec};
use serde_json::json;

use super::{output::Route, scenario::Scenario};

/// The document, as the operator would render it for the scenario.
pub(super) fn config(scenario: &Scenario, bootstrap: &str, route: &Route) -> Result<WorkerConfig> {
    let mut client = json!({
        "session.timeout.ms": scenario.session.as_millis().to_string(),
        // A session contains at least three heartbeats.
        "heartbeat.interval.ms": "500",
    });
    for (key, value) in &scenario.client {
        client[key] = json!(value);
    }
    let mut spec = json!({
        "topics": [{"name": route.input}],
        "groupId": route.group,
        "kafka": {"bootstrapServers": [bootstrap], "clientConfig": client},
        "processing": {
            "deliveryGuarantee": scenario.guarantee.to_string(),
            "ordering": scenario.ordering.to_string(),
            "batch": {"maxRecords": scenario.batch, "lingerMilliseconds": 10},
            "commitIntervalMilliseconds": 200,
        },
        "decode": {"value": {"type": "Json"}},
        "writers": [route.writer()],
        "errorHandling": {"deadLetter": {"topic": route.letters}},
        "worker": {"terminationGracePeriodSeconds": 30},
    });
    if scenario.faults.outage_seconds > 0 {
        // With the default of 30 s, the catch-up rate would only measure how late the last worker
        // retries.
        spec["errorHandling"]["retry"] = json!({"maxBackoffSeconds": 2});
    }
    let spec: KafkaConsumerGroupSpec =
        serde_json::from_value(spec).context("the resource schema does not accept this scenario")?;
    Ok(WorkerConfig::from_spec(
        "chaos",
        &scenario.name,
        &spec,
        spec.transforms.clone(),
    ))
}

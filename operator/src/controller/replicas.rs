//! `spec.replicas` outside of mode Manual. In: a group, the decision. Out: the number mirrored into the spec,
//! so that `GET /scale` works in every mode for kubectl, an HPA or KEDA; or the client that has set another
//! number. Never overwrites a number of another client.

use crds::names::OPERATOR_MANAGER;
use crds::spec::ScalingMode;
use crds::{KafkaConsumerGroup, KafkaConsumerGroupSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::Patch;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::apply::error::is_not_found;
use super::apply::{ApplyError, manager};
use super::dereference::DereferenceError;
use super::memory::GroupMemory;
use super::scope::Scope;
use crate::group::scaling::Decision;
use crate::group::validate::ValidatedGroup;

/// The client that has set spec.replicas, if it was not this operator. Only the API server knows it for sure:
/// a number that the operator mirrored before it stopped the group, or before a restart, is its own. Asked
/// once for each number that differs from the number of workers.
pub async fn set_by_another(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    memory: &mut GroupMemory,
) -> Result<Option<String>, DereferenceError> {
    let spec = &group.spec;
    let in_use = group.status.as_ref().and_then(|status| status.replicas);
    let Some(replicas) = spec.replicas.filter(|replicas| Some(*replicas) != in_use) else {
        return Ok(None);
    };
    if spec.scaling.mode == ScalingMode::Manual {
        return Ok(None);
    }
    let generation = group.metadata.generation;
    if let Some((asked, number, client)) = &memory.replicas_set_by
        && (*asked, *number) == (generation, replicas)
    {
        return Ok(client.clone());
    }
    let namespace = group.namespace().unwrap_or_default();
    let api: Api<KafkaConsumerGroup> = Api::namespaced(scope.context.client.clone(), &namespace);
    let found = api.get_metadata_opt(&group.name_any()).await;
    let found = found.map_err(|error| DereferenceError::Replicas(Box::new(error)))?;
    let entries = found.and_then(|found| found.metadata.managed_fields);
    let client = other_client(&entries.unwrap_or_default());
    memory.replicas_set_by = Some((generation, replicas, client.clone()));
    Ok(client)
}

/// The last client other than the operator that owns spec.replicas. A field that nobody owns is not the
/// operator's either, because all of its writes are tracked.
fn other_client(entries: &[ManagedFieldsEntry]) -> Option<String> {
    let name = |entry: &ManagedFieldsEntry| entry.manager.clone().unwrap_or_default();
    let owners: Vec<&ManagedFieldsEntry> = entries
        .iter()
        .filter(|entry| {
            let fields = entry.fields_v1.as_ref();
            fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
        })
        .collect();
    let others = owners.iter().filter(|entry| name(entry) != OPERATOR_MANAGER);
    let last = others.max_by_key(|entry| entry.time.clone().map(|time| time.0));
    match last {
        Some(last) => Some(name(last)),
        None if owners.is_empty() => Some("an unknown client".into()),
        None => None,
    }
}

/// Writes spec.replicas through /scale: in mode Manual once, if it is absent; in other modes it follows the
/// decision. `ours` is false if another client has set another number.
pub async fn mirror(
    scope: &Scope,
    group: &ValidatedGroup,
    decision: &Decision,
    ours: bool,
) -> Result<(), ApplyError> {
    let Some(replicas) = to_write(&group.spec, decision, ours) else {
        return Ok(());
    };
    let api: Api<KafkaConsumerGroup> = Api::namespaced(scope.context.client.clone(), &group.namespace);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    match api.patch_scale(&group.name, &manager(), &patch).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(ApplyError::Scale(Box::new(error))),
    }
}

/// What to write into spec.replicas, if anything. Never 0: that is no number to return to, and an HPA takes
/// it as a request to scale no longer.
fn to_write(spec: &KafkaConsumerGroupSpec, decision: &Decision, ours: bool) -> Option<i32> {
    let running = Some(decision.replicas).filter(|replicas| *replicas > 0);
    match (spec.scaling.mode, spec.replicas) {
        (_, None) => Some(running.unwrap_or(spec.scaling.min_replicas)),
        (ScalingMode::Manual, Some(_)) => None,
        (ScalingMode::PartitionCount, Some(written)) => {
            running.filter(|replicas| ours && *replicas != written)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::group;
    use crate::group::scaling::Limit;

    #[test]
    fn replicas_follow_the_decision_and_a_foreign_number_stays() {
        let written = |mode, replicas, decided, ours| {
            let mut spec = group().spec;
            (spec.scaling.mode, spec.replicas) = (mode, replicas);
            spec.scaling.min_replicas = 2;
            let decision = Decision {
                replicas: decided,
                recommended: Some(9),
                limited_by: Limit::None,
                reason: String::new(),
            };
            to_write(&spec, &decision, ours)
        };
        let auto = ScalingMode::PartitionCount;
        assert_eq!(written(auto, None, 9, true), Some(9));
        assert_eq!(written(auto, Some(6), 9, true), Some(9));
        assert_eq!(written(auto, Some(9), 9, true), None);
        assert_eq!(written(auto, Some(3), 9, false), None);
        // A stopped group, or one whose start position is not committed yet.
        assert_eq!(written(auto, Some(6), 0, true), None);
        assert_eq!(written(auto, None, 0, true), Some(2));
        assert_eq!(written(ScalingMode::Manual, None, 9, true), Some(9));
        assert_eq!(written(ScalingMode::Manual, None, 0, true), Some(2));
        assert_eq!(written(ScalingMode::Manual, Some(3), 9, true), None);
    }

    #[test]
    fn the_client_that_set_the_number_is_known_from_the_managed_fields() {
        let entry = |manager: &str, second: i64, field: &str| -> ManagedFieldsEntry {
            let time = jiff::Timestamp::from_second(second).unwrap();
            let fields = json!({"f:spec": {field: {}}});
            serde_json::from_value(json!({"manager": manager, "time": time, "fieldsV1": fields})).unwrap()
        };
        let ours = entry(OPERATOR_MANAGER, 5, "f:replicas");
        let writer = entry("helm", 9, "f:writers");
        assert_eq!(other_client(&[writer.clone(), ours.clone()]), None);
        let others = [
            ours,
            entry("kubectl", 3, "f:replicas"),
            entry("kube-controller-manager", 7, "f:replicas"),
            writer.clone(),
        ];
        assert_eq!(other_client(&others).as_deref(), Some("kube-controller-manager"));
        assert_eq!(other_client(&[writer]).as_deref(), Some("an unknown client"));
    }
}

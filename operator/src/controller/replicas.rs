//! `spec.replicas` outside of mode Manual. In: a group, the decision. Out: the number mirrored into the spec,
//! so that `GET /scale` works in every mode for kubectl, an HPA or KEDA; or the client that has set another
//! number. Never overwrites a number of another client.

use crds::names::OPERATOR_MANAGER;
use crds::spec::ScalingMode;
use crds::{KafkaConsumerGroup, KafkaConsumerGroupSpec};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::apply::error::{ApplyError, is_not_found};
use super::memory::GroupMemory;
use super::names::MIRRORED_REPLICAS_ANNOTATION;
use super::scope::Scope;
use crate::group::scaling::Decision;
use crate::group::validate::ValidatedGroup;

/// Who has set spec.replicas through /scale, of which the API server keeps no field manager.
const SCALE_CLIENT: &str = "a client of /scale such as kubectl scale or an HPA";

/// The client that has set spec.replicas, if it was not this operator. A number that the operator mirrored
/// before it stopped the group, or before a restart, is its own: `deployment` has it as an annotation.
pub async fn set_by_another(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    deployment: Option<&Deployment>,
    memory: &mut GroupMemory,
) -> Result<Option<String>, Box<kube::Error>> {
    let spec = &group.spec;
    let Some(replicas) = spec.replicas.filter(|_| spec.scaling.mode != ScalingMode::Manual) else {
        return Ok(None);
    };
    let in_use = group.status.as_ref().and_then(|status| status.replicas);
    if [in_use, mirrored(deployment), memory.mirrored].contains(&Some(replicas)) {
        return Ok(None);
    }
    let generation = group.metadata.generation;
    if let Some((asked, client)) = &memory.replicas_set_by
        && *asked == generation
    {
        return Ok(Some(client.clone()));
    }
    let namespace = group.namespace().unwrap_or_default();
    let api: Api<KafkaConsumerGroup> = Api::namespaced(scope.context.client.clone(), &namespace);
    let _slot = scope.api_slot().await;
    let found = api.get_metadata_opt(&group.name_any()).await;
    let entries = found
        .map_err(Box::new)?
        .and_then(|found| found.metadata.managed_fields);
    let client = client(&entries.unwrap_or_default());
    memory.replicas_set_by = Some((generation, client.clone()));
    Ok(Some(client))
}

/// The number that the operator wrote into spec.replicas.
fn mirrored(deployment: Option<&Deployment>) -> Option<i32> {
    let annotation = deployment?.annotations().get(MIRRORED_REPLICAS_ANNOTATION)?;
    annotation.parse().ok()
}

/// The last client that owns spec.replicas.
fn client(entries: &[ManagedFieldsEntry]) -> String {
    let owns = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    };
    let last = entries
        .iter()
        .filter(owns)
        .max_by_key(|entry| entry.time.clone().map(|time| time.0));
    let name = last.and_then(|entry| entry.manager.clone());
    name.unwrap_or_else(|| SCALE_CLIENT.into())
}

/// The number that spec.replicas has after [`mirror`], if it is the operator's.
pub fn to_remember(spec: &KafkaConsumerGroupSpec, decision: &Decision, ours: bool) -> Option<i32> {
    if spec.scaling.mode == ScalingMode::Manual {
        return None;
    }
    to_write(spec, decision, ours).or(spec.replicas.filter(|_| ours))
}

/// Writes spec.replicas through /scale: in mode Manual once, if it is absent; in other modes it follows the
/// decision. `ours` is false if another client has set another number.
pub async fn mirror(
    scope: &Scope,
    group: &ValidatedGroup,
    decision: &Decision,
    ours: bool,
    memory: &mut GroupMemory,
) -> Result<(), ApplyError> {
    // Still its own if the write fails, or if an older resource is read once more.
    if ours {
        memory.mirrored = group.spec.replicas;
    }
    let Some(replicas) = to_write(&group.spec, decision, ours) else {
        return Ok(());
    };
    let api: Api<KafkaConsumerGroup> = Api::namespaced(scope.context.client.clone(), &group.namespace);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let manager = PatchParams {
        field_manager: Some(OPERATOR_MANAGER.into()),
        ..PatchParams::default()
    };
    match api.patch_scale(&group.name, &manager, &patch).await {
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
        let writer = entry("helm", 9, "f:writers");
        let owners = [
            entry("kubectl-edit", 3, "f:replicas"),
            entry("argocd", 7, "f:replicas"),
            writer.clone(),
        ];
        assert_eq!(client(&owners), "argocd");
        assert_eq!(client(&[writer]), SCALE_CLIENT);
    }

    #[test]
    fn the_own_number_is_remembered_in_the_deployment() {
        let deployment = |value: &str| -> Deployment {
            let annotations = json!({MIRRORED_REPLICAS_ANNOTATION: value});
            serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap()
        };
        assert_eq!(mirrored(Some(&deployment("6"))), Some(6));
        assert_eq!(mirrored(Some(&deployment("six"))), None);
        assert_eq!(mirrored(None), None);
        let decision = |replicas| Decision {
            replicas,
            recommended: None,
            limited_by: Limit::None,
            reason: String::new(),
        };
        let mut spec = group().spec;
        spec.replicas = Some(6);
        assert_eq!(to_remember(&spec, &decision(9), true), Some(9));
        assert_eq!(to_remember(&spec, &decision(0), true), Some(6));
        assert_eq!(to_remember(&spec, &decision(9), false), None);
    }
}

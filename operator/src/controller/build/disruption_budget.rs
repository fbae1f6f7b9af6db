//! The PodDisruptionBudget of a group: a node drain evicts one worker at a time, so that the group rebalances
//! in small steps. In: a validated group. Out: the object.

use crds::spec::MaxUnavailable;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata::metadata;
use crate::controller::names::selector;
use crate::group::validate::ValidatedGroup;

/// None if the group has none.
pub fn disruption_budget(group: &ValidatedGroup) -> Option<PodDisruptionBudget> {
    let wanted = &group.spec.worker.pod_disruption_budget;
    wanted.enabled.then(|| PodDisruptionBudget {
        metadata: metadata(group),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(match &wanted.max_unavailable {
                MaxUnavailable::Number(workers) => IntOrString::Int(*workers),
                MaxUnavailable::Percent(share) => IntOrString::String(share.clone()),
            }),
            selector: Some(LabelSelector {
                match_labels: Some(selector(&group.name)),
                ..LabelSelector::default()
            }),
            // A worker that never becomes ready must not block the drain of its node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::validated;
    use serde_json::json;

    #[test]
    fn one_worker_may_be_unavailable() {
        let spec = disruption_budget(&validated()).unwrap().spec.unwrap();
        assert_eq!(spec.max_unavailable, Some(IntOrString::Int(1)));
        assert_eq!(spec.selector.unwrap().match_labels.unwrap(), selector("orders"));
    }

    #[test]
    fn the_budget_can_be_changed_or_left_out() {
        let mut group = validated();
        for (wanted, expected) in [
            (json!(3), IntOrString::Int(3)),
            (json!("25%"), IntOrString::String("25%".into())),
        ] {
            let budget = json!({"maxUnavailable": wanted});
            group.spec.worker.pod_disruption_budget = serde_json::from_value(budget).unwrap();
            let spec = disruption_budget(&group).unwrap().spec.unwrap();
            assert_eq!(spec.max_unavailable, Some(expected));
        }
        group.spec.worker.pod_disruption_budget.enabled = false;
        assert_eq!(disruption_budget(&group), None);
    }
}

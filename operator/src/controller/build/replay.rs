//! The ConfigMap and the Job of a replay. In: the validated group, narrowed to what the replay uses, and what the
//! replay adds. Out: the objects, owned by the KafkaReplay. The pods are those of the group's Deployment, except
//! that they end, and that nothing which selects the workers of the group selects them.

use std::collections::BTreeMap;

use crds::WorkerConfig;
use crds::names::{CONTROL_KEY, OPERATOR_MANAGER, REPLAY_APP, REPLAY_LABEL, WORKER_CONFIG_KEY};
use crds::worker_config::{Control, exit_code};
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;

use super::deployment::{self, CONTAINER};
use super::volumes;
use crate::controller::names::{replay_label, replay_name};
use crate::group::validate::{ReportMode, ValidatedGroup};

/// Failed pods after which the Job gives up. Outages of systems do not end a worker, so a pod that fails has
/// crashed or has used up its memory. A replay may take days, so these are more than the 6 of Kubernetes.
const BACKOFF_LIMIT: i32 = 20;
/// Exit code of a worker whose configuration is not valid, which no other attempt changes.
const CONFIG: i32 = 2;

/// What a replay adds to its group.
#[derive(Clone, Debug)]
pub struct ReplayWorkers {
    /// Name of the KafkaReplay.
    pub name: String,
    pub owner: OwnerReference,
    pub config: WorkerConfig,
    pub workers: i32,
}

/// The configuration of the workers. It never changes.
pub fn config_map(group: &ValidatedGroup, replay: &ReplayWorkers) -> ConfigMap {
    ConfigMap {
        metadata: metadata(group, replay),
        data: Some(
            [
                (WORKER_CONFIG_KEY.into(), document(&replay.config)),
                // Whether the group is paused does not matter.
                (CONTROL_KEY.into(), document(&Control::default())),
            ]
            .into(),
        ),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// Without indentation: the plan may have thousands of partitions. Serializing plain data into memory cannot fail; a
/// worker refuses an empty document.
pub fn document(document: &impl Serialize) -> String {
    serde_json::to_string(document).unwrap_or_default()
}

/// The workers. Without `completions`, the first worker that ends with code 0 says that the plan is done.
pub fn job(group: &ValidatedGroup, replay: &ReplayWorkers) -> Job {
    Job {
        metadata: metadata(group, replay),
        spec: Some(JobSpec {
            parallelism: Some(replay.workers),
            backoff_limit: Some(BACKOFF_LIMIT),
            pod_failure_policy: Some(failure_policy()),
            template: template(group, replay),
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// Labels that select the pods of a replay.
pub fn selector(replay: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", REPLAY_APP.to_string()),
        (REPLAY_LABEL, replay_label(replay)),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into()
}

/// Without the label of the group, by which users select its workers, for example to spread them or to read their
/// logs.
fn labels(replay: &ReplayWorkers) -> BTreeMap<String, String> {
    let mut labels = selector(&replay.name);
    labels.insert("app.kubernetes.io/instance".into(), replay_label(&replay.name));
    labels.insert("app.kubernetes.io/managed-by".into(), OPERATOR_MANAGER.into());
    labels
}

fn metadata(group: &ValidatedGroup, replay: &ReplayWorkers) -> ObjectMeta {
    ObjectMeta {
        name: Some(replay_name(&replay.name)),
        namespace: Some(group.namespace.clone()),
        labels: Some(labels(replay)),
        owner_references: Some(vec![replay.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn failure_policy() -> PodFailurePolicy {
    let exits = |action: &str, codes: Vec<i32>| PodFailurePolicyRule {
        action: action.into(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(CONTAINER.into()),
            operator: "In".into(),
            values: codes,
        }),
        ..PodFailurePolicyRule::default()
    };
    // Evictions, drains and preemption.
    let disrupted = PodFailurePolicyOnPodConditionsPattern {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
    };
    PodFailurePolicy {
        rules: vec![
            exits("FailJob", vec![CONFIG, exit_code::PLAN_OUTDATED.into()]),
            exits("Ignore", vec![exit_code::UNFINISHED.into()]),
            PodFailurePolicyRule {
                action: "Ignore".into(),
                on_pod_conditions: Some(vec![disrupted]),
                ..PodFailurePolicyRule::default()
            },
        ],
    }
}

fn template(group: &ValidatedGroup, replay: &ReplayWorkers) -> PodTemplateSpec {
    // They report to nobody: the status of the group is not theirs.
    let mut group = group.clone();
    group.reports = ReportMode::Pull;
    let mut pod = deployment::pod_spec(&group);
    // The Job needs it to tell how a worker has ended.
    pod.restart_policy = Some("Never".into());
    for volume in pod.volumes.iter_mut().flatten() {
        if volume.name == volumes::CONFIG_VOLUME
            && let Some(map) = &mut volume.config_map
        {
            map.name = replay_name(&replay.name);
        }
    }
    if group.spec.worker.affinity.is_none() {
        pod.affinity = Some(deployment::prefer_different_nodes(selector(&replay.name)));
    }
    let mut annotations = BTreeMap::from([(
        deployment::LOCAL_VOLUMES_ANNOTATION.into(),
        volumes::TMP_VOLUME.into(),
    )]);
    annotations.extend(group.spec.worker.annotations.clone());
    // The user's entries come first, so that ours override them.
    let mut all_labels = group.spec.worker.labels.clone();
    all_labels.extend(labels(replay));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(all_labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(pod),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;
    use crate::controller::build::config_map::config_map as config_map_of_group;
    use crate::controller::build::{deployment::deployment, disruption_budget::disruption_budget};
    use crate::controller::names::selector_text;
    use crate::fixtures::validated;

    fn workers(group: &ValidatedGroup) -> ReplayWorkers {
        ReplayWorkers {
            name: "orders".into(),
            owner: OwnerReference {
                kind: "KafkaReplay".into(),
                name: "orders".into(),
                uid: "r".into(),
                ..OwnerReference::default()
            },
            config: WorkerConfig::from_spec("shop", "orders", &group.spec, group.transforms.clone()),
            workers: 2,
        }
    }

    fn built(edit: impl FnOnce(&mut ValidatedGroup)) -> (Job, ConfigMap, ValidatedGroup) {
        let mut group = validated();
        edit(&mut group);
        let replay = workers(&group);
        (job(&group, &replay), config_map(&group, &replay), group)
    }

    /// Whether a selector without expressions selects these labels.
    fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
        let wanted = selector.match_labels.clone().unwrap_or_default();
        wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    fn template_of(job: &Job) -> (BTreeMap<String, String>, PodSpec) {
        let template = job.spec.clone().unwrap().template;
        (template.metadata.unwrap().labels.unwrap(), template.spec.unwrap())
    }

    #[test]
    fn nothing_that_selects_the_workers_of_a_group_selects_its_replay() {
        // Also if a user gives the workers the labels that we use.
        let (job, _, group) = built(|group| {
            let name = "app.kubernetes.io/name";
            group
                .spec
                .worker
                .labels
                .insert(name.into(), crds::names::WORKER_APP.into());
        });
        let (labels, _) = template_of(&job);
        let config = config_map_of_group(&group);
        let of_group = deployment(&group, 1, &config, BTreeMap::new()).spec.unwrap();
        assert!(!selects(&of_group.selector, &labels), "{labels:?}");
        let own = of_group.template.metadata.unwrap().labels.unwrap();
        assert!(selects(&of_group.selector, &own));
        let budget = disruption_budget(&group).and_then(|budget| budget.spec?.selector);
        assert!(budget.is_some_and(|budget| !selects(&budget, &labels)));
        assert!(selector_text("orders").contains("kafka-consumer-worker"));
        assert!(
            selector("orders")
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        );
        assert!(!labels.contains_key(crds::names::GROUP_LABEL), "{labels:?}");
    }

    #[test]
    fn the_pods_are_those_of_the_group_and_end() {
        let (job, config_map, group) = built(|group| group.reports = ReportMode::Push);
        let (_, pod) = template_of(&job);
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
        assert_eq!(pod.service_account_name.as_deref(), Some("orders-worker"));
        let container = &pod.containers[0];
        assert_eq!(container.image.as_deref(), Some("registry/worker:1"));
        // It must not write into the status of the group.
        let args = container.args.clone().unwrap();
        assert!(!args.iter().any(|arg| arg == "--report-status"), "{args:?}");
        let mounted = pod.volumes.unwrap();
        let config = mounted
            .iter()
            .find(|volume| volume.name == volumes::CONFIG_VOLUME)
            .unwrap();
        assert_eq!(config.config_map.as_ref().unwrap().name, "orders-replay");
        assert_eq!(config_map.metadata.name.as_deref(), Some("orders-replay"));
        let secrets = mounted.iter().filter(|volume| volume.secret.is_some()).count();
        assert_eq!(secrets, 4, "those of {:?}", group.references.mounted_objects());
        let owner = job.metadata.owner_references.unwrap().remove(0);
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("KafkaReplay", "r"));
        let data = config_map.data.unwrap();
        let config: WorkerConfig = serde_json::from_str(&data[WORKER_CONFIG_KEY]).unwrap();
        assert_eq!(config, workers(&group).config);
        assert_eq!(
            serde_json::from_str::<Control>(&data[CONTROL_KEY]).unwrap(),
            Control::default()
        );
    }

    #[test]
    fn a_stop_is_no_failure_and_an_outdated_plan_ends_the_job() {
        let spec = built(|_| {}).0.spec.unwrap();
        assert_eq!((spec.parallelism, spec.completions), (Some(2), None));
        let rules = spec.pod_failure_policy.unwrap().rules;
        let codes = |action: &str| -> Vec<i32> {
            let of = rules.iter().filter(|rule| rule.action == action);
            of.filter_map(|rule| rule.on_exit_codes.clone())
                .flat_map(|codes| codes.values)
                .collect()
        };
        assert_eq!(codes("FailJob"), [2, 7]);
        assert_eq!(codes("Ignore"), [6]);
    }
}

//! The worker Deployment of a group. In: a validated group, the number of replicas, its ConfigMap. Out: the
//! object; its pods always meet the restricted Pod Security standard, whatever the spec says.

use std::collections::BTreeMap;

use crds::names;
use crds::spec::AssignedBy;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMap, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec,
    Probe, ResourceRequirements, SeccompProfile, SecurityContext, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config_map::config_hash;
use super::metadata::metadata;
use super::volumes;
use crate::controller::names as child_names;
use crate::group::validate::{ReportMode, ValidatedGroup};

/// The user id of the distroless images; any number except 0 works, because the image has no user database.
const NON_ROOT: i64 = 65532;
/// Volumes whose loss is harmless: without this the cluster autoscaler does not remove a node with such a
/// pod.
pub(super) const LOCAL_VOLUMES_ANNOTATION: &str =
    "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// Name of the only container.
pub const CONTAINER: &str = "worker";

pub fn deployment(
    group: &ValidatedGroup,
    replicas: i32,
    config_map: &ConfigMap,
    annotations: BTreeMap<String, String>,
) -> Deployment {
    let mut metadata = metadata(group);
    metadata.annotations = Some(annotations);
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            // Surge pods would join the group and cause partitions to move twice.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::String("25%".into())),
                }),
            }),
            selector: LabelSelector {
                match_labels: Some(child_names::selector(&group.name)),
                ..LabelSelector::default()
            },
            revision_history_limit: Some(2),
            template: PodTemplateSpec {
                metadata: Some(template_metadata(group, config_map)),
                spec: Some(pod_spec(group)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn template_metadata(group: &ValidatedGroup, config_map: &ConfigMap) -> ObjectMeta {
    // The user's entries come first, so that ours override them: selector and hashes must not change.
    let mut labels = group.spec.worker.labels.clone();
    labels.extend(child_names::labels(&group.name));
    let mut annotations = BTreeMap::from([(LOCAL_VOLUMES_ANNOTATION.into(), volumes::TMP_VOLUME.into())]);
    annotations.extend(group.spec.worker.annotations.clone());
    annotations.insert(names::CONFIG_HASH_ANNOTATION.into(), config_hash(config_map));
    annotations.insert(names::SECRETS_HASH_ANNOTATION.into(), group.secrets_hash.clone());
    ObjectMeta {
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

pub(super) fn pod_spec(group: &ValidatedGroup) -> PodSpec {
    let worker = &group.spec.worker;
    let id = |chosen: Option<i64>| match worker.run_as.assigned_by {
        AssignedBy::Operator => Some(chosen.unwrap_or(NON_ROOT)),
        AssignedBy::Platform => None,
    };
    PodSpec {
        service_account_name: Some(child_names::child_name(&group.name)),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(worker.termination_grace_period_seconds),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: id(worker.run_as.user),
            run_as_group: id(worker.run_as.group),
            fs_group: id(worker.run_as.fs_group),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(group)],
        volumes: Some(volumes::volumes(group)),
        image_pull_secrets: some(worker.image_pull_secrets.clone()),
        node_selector: (!worker.node_selector.is_empty()).then(|| worker.node_selector.clone()),
        tolerations: some(worker.tolerations.clone()),
        affinity: Some(
            worker
                .affinity
                .clone()
                .unwrap_or_else(|| prefer_different_nodes(child_names::selector(&group.name))),
        ),
        topology_spread_constraints: some(worker.topology_spread_constraints.clone()),
        priority_class_name: worker.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn container(group: &ValidatedGroup) -> Container {
    let worker = &group.spec.worker;
    let mut env: Vec<EnvVar> = worker.env.clone();
    env.push(from_field("POD_NAME", "metadata.name"));
    env.push(from_field("POD_NAMESPACE", "metadata.namespace"));
    Container {
        name: CONTAINER.into(),
        image: Some(group.image.clone()),
        image_pull_policy: group.image_pull_policy.map(|policy| policy.as_str().into()),
        args: Some(args(group)),
        env: Some(env),
        ports: Some(vec![ContainerPort {
            name: Some("http".into()),
            container_port: names::WORKER_HTTP_PORT.into(),
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        resources: Some(worker.resources.clone().unwrap_or_else(default_resources)),
        // A worker that starts answers within a second; a minute is for an overloaded node.
        startup_probe: Some(Probe {
            failure_threshold: Some(60),
            ..probe("/livez", 1)
        }),
        // 30 s without a tick of the poll thread: longer than any short stall, far below max.poll.interval.
        liveness_probe: Some(Probe {
            failure_threshold: Some(3),
            ..probe("/livez", 10)
        }),
        // A rollout continues as soon as a worker has joined the group, so this probe is frequent.
        readiness_probe: Some(Probe {
            failure_threshold: Some(2),
            ..probe("/readyz", 2)
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        // The last log lines of a crashing worker appear in the status of the group.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(volumes::mounts(group)),
        ..Container::default()
    }
}

fn args(group: &ValidatedGroup) -> Vec<String> {
    let mut args = vec![
        "--config".into(),
        format!("{}/{}", names::CONFIG_DIR, names::WORKER_CONFIG_KEY),
    ];
    // Another argument would restart all workers when the operator is upgraded, so this is not the default.
    if group.reports == ReportMode::Push {
        args.push("--report-status".into());
    }
    args
}

fn from_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".into()),
                field_path: path.into(),
            }),
            ..EnvVarSource::default()
        }),
        value: None,
    }
}

fn probe(path: &str, period_seconds: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(names::WORKER_HTTP_PORT.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn default_resources() -> ResourceRequirements {
    let request = |name: &str, amount: &str| (name.to_string(), Quantity(amount.into()));
    let requests: BTreeMap<_, _> = [request("cpu", "100m"), request("memory", "128Mi")].into();
    ResourceRequirements {
        requests: Some(requests),
        ..ResourceRequirements::default()
    }
}

/// Pods with these labels are not put on the same node, if there are others.
pub(super) fn prefer_different_nodes(labels: BTreeMap<String, String>) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    label_selector: Some(LabelSelector {
                        match_labels: Some(labels),
                        ..LabelSelector::default()
                    }),
                    topology_key: "kubernetes.io/hostname".into(),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::super::config_map::config_map;
    use super::*;
    use crate::fixtures::validated;

    fn built(edit: impl FnOnce(&mut ValidatedGroup)) -> Deployment {
        let mut group = validated();
        edit(&mut group);
        deployment(&group, 3, &config_map(&group), BTreeMap::new())
    }

    fn pod(deployment: &Deployment) -> (PodSpec, Container) {
        let pod = deployment.spec.clone().unwrap().template.spec.unwrap();
        let container = pod.containers[0].clone();
        (pod, container)
    }

    fn annotation(deployment: &Deployment, name: &str) -> String {
        let template = deployment.spec.clone().unwrap().template.metadata.unwrap();
        template.annotations.unwrap()[name].clone()
    }

    #[test]
    fn pods_meet_the_restricted_standard() {
        let (pod, container) = pod(&built(|_| {}));
        let context = pod.security_context.unwrap();
        assert_eq!(
            (context.run_as_non_root, context.run_as_user),
            (Some(true), Some(65532))
        );
        assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
        let context = container.security_context.unwrap();
        assert_eq!(context.allow_privilege_escalation, Some(false));
        assert_eq!(context.read_only_root_filesystem, Some(true));
        assert_eq!(context.capabilities.unwrap().drop.unwrap(), ["ALL"]);
    }

    #[test]
    fn replicas_come_from_the_decision_and_no_pod_surges() {
        let spec = built(|_| {}).spec.unwrap();
        assert_eq!(spec.replicas, Some(3));
        assert_eq!(
            spec.strategy.unwrap().rolling_update.unwrap().max_surge,
            Some(IntOrString::Int(0))
        );
    }

    #[test]
    fn configuration_and_secrets_cause_separate_rollouts() {
        let before = built(|_| {});
        let config = built(|group| group.spec.processing.concurrency = Some(9));
        let secrets = built(|group| group.secrets_hash = "rotated".into());
        let (hash, of_secrets) = (names::CONFIG_HASH_ANNOTATION, names::SECRETS_HASH_ANNOTATION);
        assert_ne!(annotation(&before, hash), annotation(&config, hash));
        assert_eq!(annotation(&before, of_secrets), annotation(&config, of_secrets));
        assert_eq!(annotation(&before, hash), annotation(&secrets, hash));
        assert_eq!(annotation(&secrets, of_secrets), "rotated");
    }

    #[test]
    fn users_add_labels_but_cannot_override_the_selector() {
        let deployment = built(|group| {
            group.spec.worker.labels = [
                ("team".into(), "shop".into()),
                (names::GROUP_LABEL.into(), "other".into()),
            ]
            .into();
        });
        let labels = deployment
            .spec
            .unwrap()
            .template
            .metadata
            .unwrap()
            .labels
            .unwrap();
        assert_eq!(
            (labels["team"].as_str(), labels[names::GROUP_LABEL].as_str()),
            ("shop", "orders")
        );
    }

    #[test]
    fn the_worker_gets_its_configuration_path_and_its_own_name() {
        let (pod, container) = pod(&built(|_| {}));
        assert_eq!(
            container.args.unwrap(),
            ["--config", "/etc/kafka-consumer/config/worker.json"]
        );
        let (_, pushing) = self::pod(&built(|group| group.reports = ReportMode::Push));
        assert_eq!(pushing.args.unwrap()[2..], ["--report-status"]);
        let env: Vec<_> = container.env.unwrap().into_iter().map(|var| var.name).collect();
        assert_eq!(env, ["POD_NAME", "POD_NAMESPACE"]);
        assert_eq!(pod.service_account_name.as_deref(), Some("orders-worker"));
        assert_eq!(pod.termination_grace_period_seconds, Some(60));
        assert!(pod.affinity.unwrap().pod_anti_affinity.is_some());
    }
}

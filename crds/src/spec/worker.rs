//! `spec.worker`: the settings of the worker pods that users may change. A curated list instead of an
//! embedded pod template, so that the pods always meet the restricted Pod Security Standard.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the worker pods. The pods always run as non-root with a read-only root file system and no
/// capabilities.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))")
        .message("a volumeMounts entry names no entry of worker.volumes; add a volume of this name, or correct the name"),
    validation = Rule::new("!has(self.volumeMounts) || self.volumeMounts.all(m, !m.mountPath.startsWith('/etc/kafka-consumer'))")
        .message("mountPath must not lie in /etc/kafka-consumer, where the operator mounts configuration; use another path")
)]
pub struct Worker {
    /// Image of the workers. status.workerImage shows the image in use. Default: the operator's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When Kubernetes pulls the image. Default: the operator's setting if there is one, otherwise Always for
    /// the tag latest and IfNotPresent for other tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets for pulling the image, by name. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// CPU and memory, as in a container. Default: requests of 100m CPU and 128Mi memory, no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Additional environment variables, for custom transforms and writers.
    /// Their names must be unique. POD_NAME and POD_NAMESPACE are reserved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub env: Vec<EnvVar>,
    /// Additional volumes. Their names must be unique and must not begin with "kcg-".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub volumes: Vec<Volume>,
    /// Where the container mounts the additional volumes. Each path at most once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".to_string()]))]
    pub volume_mounts: Vec<VolumeMount>,
    /// Additional pod labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Additional pod annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node must have to run the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pods. Default: workers of a group prefer different nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How the scheduler spreads the pods over zones and nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Name of the PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Time that a stopping worker has to finish its records in flight and to commit, in seconds. The worker
    /// reserves five seconds of it for leaving the group. Default: 60.
    #[serde(default = "grace_period")]
    #[schemars(range(min = 15, max = 3600))]
    pub termination_grace_period_seconds: i64,
    /// User and groups of the pods. Default: user, group and fsGroup 65532.
    #[serde(default)]
    pub run_as: RunAs,
    /// PodDisruptionBudget of the workers. Default: enabled, one worker at a time.
    #[serde(default)]
    pub pod_disruption_budget: DisruptionBudget,
    /// Labels and annotations of the workers' ServiceAccount, for the identities of cloud providers.
    #[serde(default)]
    pub service_account: ServiceAccount,
}

/// User and groups of the worker pods. They never run as root.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.assignedBy) || self.assignedBy != 'Platform' || (!has(self.user) && !has(self.group) && !has(self.fsGroup))")
        .message("runAs.assignedBy Platform leaves user, group and fsGroup to the platform; remove them, or use assignedBy Operator")
)]
pub struct RunAs {
    /// Who chooses the ids. Default: Operator.
    ///
    /// - Operator: user, group and fsGroup as set here.
    /// - Platform: the pods set none, so that the platform assigns them, as OpenShift does for each namespace.
    ///   The image must not set root as its user.
    #[serde(default)]
    pub assigned_by: AssignedBy,
    /// User id. Default: 65532.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub user: Option<i64>,
    /// Group id. Default: 65532.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub group: Option<i64>,
    /// Group id of the volumes' files. Default: 65532.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub fs_group: Option<i64>,
}

/// Values of `worker.runAs.assignedBy`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum AssignedBy {
    #[default]
    Operator,
    Platform,
}

/// How many workers a node drain may evict at the same time.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisruptionBudget {
    /// Whether the operator creates a PodDisruptionBudget. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Workers that may be unavailable: a number, or a share of them like "25%", rounded up. Default: 1.
    #[serde(default = "one")]
    pub max_unavailable: MaxUnavailable,
}

/// A number, or a share in percent.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum MaxUnavailable {
    Number(i32),
    Percent(String),
}

impl JsonSchema for MaxUnavailable {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MaxUnavailable".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 1,
            "maximum": 1000,
            "pattern": "^([1-9][0-9]?|100)%$",
        })
    }
}

impl Default for DisruptionBudget {
    fn default() -> Self {
        Self {
            enabled: yes(),
            max_unavailable: one(),
        }
    }
}

/// Metadata of the workers' ServiceAccount.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    /// Additional labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Additional annotations, for example {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/orders"}.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            image: None,
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            resources: None,
            env: Vec::new(),
            volumes: Vec::new(),
            volume_mounts: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            topology_spread_constraints: Vec::new(),
            priority_class_name: None,
            termination_grace_period_seconds: grace_period(),
            run_as: RunAs::default(),
            pod_disruption_budget: DisruptionBudget::default(),
            service_account: ServiceAccount::default(),
        }
    }
}

fn grace_period() -> i64 {
    60
}

fn yes() -> bool {
    true
}

fn one() -> MaxUnavailable {
    MaxUnavailable::Number(1)
}

/// Image pull policies, by Kubernetes' names.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ImagePullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl ImagePullPolicy {
    /// The name as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            ImagePullPolicy::Always => "Always",
            ImagePullPolicy::IfNotPresent => "IfNotPresent",
            ImagePullPolicy::Never => "Never",
        }
    }
}

/// A volume of a kind that restricted pods may use. Set exactly one of emptyDir, persistentVolumeClaim,
/// secret and configMap.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("[has(self.emptyDir), has(self.persistentVolumeClaim), has(self.secret), has(self.configMap)].filter(x, x).size() == 1")
        .message("exactly one of emptyDir, persistentVolumeClaim, secret and configMap must be set"),
    validation = Rule::new("!self.name.startsWith('kcg-')")
        .message("names of volumes that begin with kcg- are reserved for the operator; use another name")
)]
pub struct Volume {
    /// Name of the volume. volumeMounts refer to it.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Empty directory that exists as long as the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
    /// An existing PersistentVolumeClaim of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaim>,
    /// A Secret of the same namespace, mounted as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretVolume>,
    /// A ConfigMap of the same namespace, mounted as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapVolume>,
}

/// An empty directory that exists as long as the pod.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmptyDir {
    /// Maximum size, a Kubernetes quantity like "1Gi". Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size_limit: Option<String>,
    /// Memory: the files are in memory and count towards the memory limit of the container. Default: the disk of
    /// the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
}

/// Where an empty directory is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Medium {
    Memory,
}

/// An existing PersistentVolumeClaim.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PersistentVolumeClaim {
    /// Name of the PersistentVolumeClaim.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// A Secret, mounted as files: one file per key.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretVolume {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// A ConfigMap, mounted as files: one file per key.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapVolume {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A mount of a volume.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    /// Name of an entry of worker.volumes.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Absolute path in the container. It must not lie in /etc/kafka-consumer.
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/[^:]*[^:/]$"))]
    pub mount_path: String,
    /// Whether the mount is read-only. Default: false.
    #[serde(default)]
    pub read_only: bool,
}

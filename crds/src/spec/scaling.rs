//! `spec.scaling`: how many workers run.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many workers run. Whatever the mode, never more than there are partitions: more would idle.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas")
        .message("minReplicas must not be greater than maxReplicas")
)]
pub struct Scaling {
    /// PartitionCount: one worker per partitionsPerWorker partitions; added partitions are followed. Manual: spec.replicas,
    /// set by kubectl scale, an HPA or KEDA.
    #[serde(default)]
    pub mode: ScalingMode,
    /// Mode PartitionCount: partitions that one worker carries; workers = partitions / this, rounded up.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10000))]
    pub partitions_per_worker: i32,
    /// Fewest workers.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// Most workers. Absent: the number of partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: Option<i32>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            mode: ScalingMode::default(),
            partitions_per_worker: one(),
            min_replicas: one(),
            max_replicas: None,
        }
    }
}

fn one() -> i32 {
    1
}

/// See `scaling.mode`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ScalingMode {
    #[default]
    PartitionCount,
    Manual,
}

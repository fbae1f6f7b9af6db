//! `spec.scaling`: how many workers run.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many workers the operator runs. In every mode, the number of partitions is the upper limit, because
/// more workers would idle.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas")
        .message("minReplicas must not be greater than maxReplicas")
)]
pub struct Scaling {
    /// How the number of workers is chosen. Default: PartitionCount.
    ///
    /// - PartitionCount: one worker per partitionsPerWorker partitions. The operator adds workers when
    ///   partitions are added.
    /// - Manual: spec.replicas workers. kubectl scale, an HPA or KEDA sets the number.
    #[serde(default)]
    pub mode: ScalingMode,
    /// With mode PartitionCount, number of partitions per worker: workers = partitions / partitionsPerWorker,
    /// rounded up. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10000))]
    pub partitions_per_worker: i32,
    /// Minimum number of workers. If there are fewer partitions, the operator runs one worker per partition.
    /// Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// Maximum number of workers. Default: 100 with mode PartitionCount, or minReplicas if that is more; no
    /// maximum with mode Manual. Condition ScalingLimited shows when it applies.
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

/// Default of `maxReplicas` in mode PartitionCount: a topic with very many partitions must not start as many
/// pods unasked.
pub const DEFAULT_MAX_REPLICAS: i32 = 100;

fn one() -> i32 {
    1
}

/// Values of `scaling.mode`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ScalingMode {
    #[default]
    PartitionCount,
    Manual,
}

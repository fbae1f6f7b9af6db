//! Names that operator, worker, chart and tests share.

/// API group of the resources, and prefix of labels and annotations.
pub const API_GROUP: &str = "kafka-consumer.dev";
/// Label on every child object: name of its `KafkaConsumerGroup`.
pub const GROUP_LABEL: &str = "kafka-consumer.dev/group";
/// `app.kubernetes.io/name` of worker pods.
pub const WORKER_APP: &str = "kafka-consumer-worker";
/// Label on the children of a `KafkaReplay`: its name.
pub const REPLAY_LABEL: &str = "kafka-consumer.dev/replay";
/// `app.kubernetes.io/name` of the pods of a replay. It differs from [`WORKER_APP`], so that nothing that selects
/// the workers of a group selects them.
pub const REPLAY_APP: &str = "kafka-consumer-replay";
/// Field manager of the operator's server-side applies.
pub const OPERATOR_MANAGER: &str = "kafka-consumer-operator";
/// Annotation on the pod template: hash of the worker configuration. A change starts a rolling update.
pub const CONFIG_HASH_ANNOTATION: &str = "kafka-consumer.dev/config-hash";
/// Annotation on the pod template: hash of all mounted Secrets and ConfigMaps. A change starts a rolling
/// update.
pub const SECRETS_HASH_ANNOTATION: &str = "kafka-consumer.dev/secrets-hash";
/// Annotation on pods (not on the template): the last desired state that the operator requested. A change
/// makes the kubelet sync the pod and its mounted ConfigMap at once instead of within a minute.
pub const DESIRED_STATE_ANNOTATION: &str = "kafka-consumer.dev/desired-state";

/// Key of the ConfigMap that holds the [`crate::WorkerConfig`] as JSON.
pub const WORKER_CONFIG_KEY: &str = "worker.json";
/// Key of the ConfigMap that holds the [`crate::worker_config::Control`] document, which workers reread while
/// they run.
pub const CONTROL_KEY: &str = "control.json";
/// Mount path of the ConfigMap in a worker pod.
pub const CONFIG_DIR: &str = "/etc/kafka-consumer/config";
/// Mount path of referenced Secrets: `<dir>/<secret name>/<key>`.
pub const SECRETS_DIR: &str = "/etc/kafka-consumer/secrets";
/// Mount path of referenced ConfigMaps: `<dir>/<config map name>/<key>`.
pub const CONFIG_MAPS_DIR: &str = "/etc/kafka-consumer/config-maps";
/// Port of the worker's probes, metrics and `/status`.
pub const WORKER_HTTP_PORT: u16 = 8080;

/// Environment variable with the start of a worker process in Unix milliseconds, set by local mode: part of
/// the `client.id` of its consumer. Without it the worker reads the clock.
pub const STARTED_AT_ENV: &str = "KCW_STARTED_AT";

/// Field manager of a worker's status entry.
pub fn worker_manager(pod: &str) -> String {
    format!("kafka-consumer-worker/{pod}")
}

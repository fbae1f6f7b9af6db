//! `spec.kafka` and `spec.consumer`: connection, security and reading.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client_config::{CLIENT_CONFIG_MESSAGE, client_config_rule};

/// Connection to the Kafka cluster.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new(client_config_rule()).message(CLIENT_CONFIG_MESSAGE)
)]
pub struct Kafka {
    /// Bootstrap brokers, each as "host:port". Clients discover the other brokers from them.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 3, max = 260), regex(pattern = r"^[^\s,/]+:[0-9]{1,5}$"))
    )]
    pub bootstrap_servers: Vec<String>,
    /// TLS settings. If set, even to {}, clients connect with TLS. Default: no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// SASL settings. If set, clients authenticate with SASL. Default: no SASL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Additional librdkafka properties, from an allow-list (docs/client-config.md). Keys that the operator
    /// sets itself, that read files or that run programs are not allowed. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub client_config: BTreeMap<String, ClientConfigValue>,
}

/// Value of a librdkafka property. Always a string: quote numbers and booleans.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(transparent)]
pub struct ClientConfigValue(#[schemars(length(max = 256))] pub String);

/// TLS between clients and brokers.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// Certificate authorities (PEM) that clients trust for the brokers' certificates. Default: the system's
    /// root certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSource>,
    /// Client certificate for mutual TLS. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
    /// How clients verify brokers. Default: Full.
    ///
    /// - Full: check the broker's certificate and host name.
    /// - Disabled: check neither. For tests only.
    #[serde(default)]
    pub server_verification: ServerVerification,
}

/// A PEM bundle in a Secret or a ConfigMap of the same namespace. Set exactly one of secretName and
/// configMapName.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.secretName) != has(self.configMapName)")
        .message("exactly one of secretName and configMapName must be set")
)]
pub struct CaSource {
    /// Name of the Secret that holds the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// Name of the ConfigMap that holds the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: Option<String>,
    /// Key in the Secret or ConfigMap. Default: ca.crt.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".into()
}

/// A client certificate and its private key, in a Secret of type kubernetes.io/tls (keys tls.crt and
/// tls.key).
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificate {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// Values of `kafka.tls.serverVerification`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ServerVerification {
    #[default]
    Full,
    Disabled,
}

/// SASL authentication.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sasl {
    /// SASL mechanism. PLAIN sends the password as it is: use it only with TLS.
    pub mechanism: SaslMechanism,
    /// Secret that holds the user name and the password.
    pub credentials: SaslCredentials,
}

/// SASL mechanisms, by Kafka's names.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum SaslMechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// The name as Kafka spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A user name and a password in a Secret of the same namespace.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SaslCredentials {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Key of the user name in the Secret. Default: username.
    #[serde(default = "username_key")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: String,
    /// Key of the password in the Secret. Default: password.
    #[serde(default = "password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: String,
}

fn username_key() -> String {
    "username".into()
}

fn password_key() -> String {
    "password".into()
}

/// How workers read records.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Consumer {
    /// Where a topic without committed offsets starts when it joins the group: when the group is created, or
    /// when the topic is added to spec.topics. Partitions added to a topic later always start at their first
    /// record. Default: {type: Earliest}.
    #[serde(default)]
    pub start_position: StartPosition,
    /// Which records workers read (isolation.level). Default: ReadCommitted.
    ///
    /// - ReadCommitted: skip records of aborted transactions.
    /// - ReadUncommitted: read all records.
    #[serde(default)]
    pub isolation_level: IsolationLevel,
    /// Rebalance protocol of the group (group.protocol). It can be changed later. Default: Classic.
    ///
    /// - Classic: the workers agree on the assignment (cooperative-sticky). Every version of Kafka supports
    ///   it.
    /// - Consumer: the broker computes the assignment (KIP-848), which moves partitions faster in large
    ///   groups. Needs Kafka 4.0 or newer. The broker's group.consumer.session.timeout.ms and
    ///   group.consumer.heartbeat.interval.ms apply.
    #[serde(default)]
    pub group_protocol: GroupProtocol,
    /// What workers do with a topic that is deleted and created again under the same name. They recognize it
    /// by its id (Kafka 3.1 or newer), and never use offsets of the deleted topic for the new one. If no worker
    /// runs at that time, they read the new topic from its first record, because Kafka removes the offsets of
    /// a deleted topic. Default: Restart.
    ///
    /// - Restart: read the new topic from its first record, or from startPosition.timestamp.
    /// - Stop: read and commit nothing of the new topic. Status shows TopicRecreated. To continue, set
    ///   Restart, or stop the group, set its offsets of this topic, and start it again.
    #[serde(default)]
    pub on_topic_recreated: OnTopicRecreated,
    /// Where workers continue when the offset of a partition is out of range: retention has removed its
    /// records before they were read, or the offset lies behind the end of the partition. Logs show the range,
    /// kcg_worker_records_removed_unread_total counts the removed records. Default: Earliest.
    ///
    /// - Earliest: at the first record that is left.
    /// - Latest: at the end.
    /// - Stop: nowhere. Status shows OffsetOutOfRange for the partition; other partitions continue. To
    ///   continue, set Earliest or Latest, or stop the group, set its offset, and start it again.
    #[serde(default)]
    pub on_offset_out_of_range: OnOffsetOutOfRange,
}

/// Values of `consumer.onTopicRecreated`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum OnTopicRecreated {
    #[default]
    Restart,
    Stop,
}

/// Values of `consumer.onOffsetOutOfRange`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum OnOffsetOutOfRange {
    #[default]
    Earliest,
    Latest,
    Stop,
}

/// Values of `consumer.groupProtocol`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum GroupProtocol {
    #[default]
    Classic,
    Consumer,
}

/// Where a partition without a committed offset starts.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.timestamp) == (self.type == 'Timestamp')")
        .message("timestamp must be set when type is Timestamp, and only then, for example {type: Timestamp, timestamp: \"2026-01-31T00:00:00Z\"}")
)]
pub struct StartPosition {
    /// Kind of start position. Default: Earliest.
    ///
    /// - Earliest: the first record.
    /// - Latest: only records written after the topic joins the group.
    /// - Timestamp: the first record at or after the time in timestamp.
    #[serde(rename = "type", default)]
    pub kind: StartPositionType,
    /// Start time, RFC 3339, for example "2026-01-31T00:00:00Z". Required with type Timestamp, not allowed
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub timestamp: Option<Timestamp>,
}

/// Values of `consumer.startPosition.type`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum StartPositionType {
    #[default]
    Earliest,
    Latest,
    Timestamp,
}

/// Values of `consumer.isolationLevel`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum IsolationLevel {
    #[default]
    ReadCommitted,
    ReadUncommitted,
}

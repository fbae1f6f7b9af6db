//! `spec.kafka` and `spec.consumer`: connection, security and reading.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client_config::{CLIENT_CONFIG_MESSAGE, client_config_rule};

/// How to reach the Kafka cluster.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new(client_config_rule()).message(CLIENT_CONFIG_MESSAGE)
)]
pub struct Kafka {
    /// Brokers to start from, "host:port".
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 3, max = 260), regex(pattern = r"^[^\s,/]+:[0-9]{1,5}$"))
    )]
    pub bootstrap_servers: Vec<String>,
    /// Presence means TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Presence means SASL authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Extra librdkafka properties, from an allow-list (docs/client-config.md). Keys that the operator sets itself, read
    /// files or run programs are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub client_config: BTreeMap<String, ClientConfigValue>,
}

/// A librdkafka property value: always a string, quote numbers.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(transparent)]
pub struct ClientConfigValue(#[schemars(length(max = 256))] pub String);

/// TLS to the brokers.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// Certificate authority that signed the brokers' certificates, PEM. Absent: the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSource>,
    /// Client certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
    /// Full: the broker's certificate and host name are checked. Disabled: neither is; for tests only.
    #[serde(default)]
    pub server_verification: ServerVerification,
}

/// A PEM bundle in a Secret or a ConfigMap.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.secretName) != has(self.configMapName)")
        .message("exactly one of secretName and configMapName must be set")
)]
pub struct CaSource {
    /// Secret that holds the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// ConfigMap that holds the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: Option<String>,
    /// Key in the Secret or ConfigMap.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".into()
}

/// A Secret of type kubernetes.io/tls: keys tls.crt and tls.key.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificate {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// See `kafka.tls.serverVerification`.
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
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Use PLAIN only with TLS.
    pub mechanism: SaslMechanism,
    /// Secret with user name and password.
    pub credentials: SaslCredentials,
}

/// Kafka's own names of the mechanisms.
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

/// Where user name and password are.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SaslCredentials {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Key of the user name.
    #[serde(default = "username_key")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: String,
    /// Key of the password.
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

/// How records are read.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Consumer {
    /// Where partitions without a committed offset start when the group is created. Partitions added to a topic later
    /// always start at their first record.
    #[serde(default)]
    pub start_position: StartPosition,
    /// ReadCommitted: records of aborted transactions are not read. ReadUncommitted: all records are.
    #[serde(default)]
    pub isolation_level: IsolationLevel,
    /// How the partitions are shared out. Classic: the workers agree on it (cooperative-sticky); every Kafka knows that.
    /// Consumer: the broker decides (KIP-848), and moves partitions faster in large groups; needs Kafka 4.0 or newer, whose
    /// group.consumer.session.timeout.ms and group.consumer.heartbeat.interval.ms apply. Can be changed later.
    #[serde(default)]
    pub group_protocol: GroupProtocol,
}

/// See `consumer.groupProtocol`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum GroupProtocol {
    #[default]
    Classic,
    Consumer,
}

/// Where to start.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.timestamp) == (self.type == 'Timestamp')")
        .message("timestamp must be set when type is Timestamp, and only then, for example {type: Timestamp, timestamp: \"2026-01-31T00:00:00Z\"}")
)]
pub struct StartPosition {
    /// Earliest: the first record. Latest: only records written from now on. Timestamp: the first record at or after it.
    #[serde(rename = "type", default)]
    pub kind: StartPositionType,
    /// RFC 3339 time, for type Timestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub timestamp: Option<Timestamp>,
}

/// See `consumer.startPosition.type`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum StartPositionType {
    #[default]
    Earliest,
    Latest,
    Timestamp,
}

/// See `consumer.isolationLevel`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum IsolationLevel {
    #[default]
    ReadCommitted,
    ReadUncommitted,
}

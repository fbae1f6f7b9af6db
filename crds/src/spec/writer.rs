//! `spec.writers`: where records go. A union: `type` names the one member that must be set.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    kafka::{CaSource, SaslCredentials},
    references::SecretKey,
    transform::Custom,
};

/// A named writer. Exactly the member that belongs to `type` is set; Stdout and Blackhole have none.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.file) == (self.type == 'File')")
        .message("file must be set when type is File, and only then, for example {type: File, file: {directory: /data}}"),
    validation = Rule::new("has(self.kafka) == (self.type == 'Kafka')")
        .message("kafka must be set when type is Kafka, and only then, for example {type: Kafka, kafka: {topic: orders-clean}}"),
    validation = Rule::new("has(self.http) == (self.type == 'Http')")
        .message("http must be set when type is Http, and only then, for example {type: Http, http: {url: 'https://api.example.com/orders'}}"),
    validation = Rule::new("has(self.postgres) == (self.type == 'Postgres')")
        .message("postgres must be set when type is Postgres, and only then, for example {type: Postgres, postgres: {connection: {secretName: db, key: url}, table: orders, keyColumns: [id]}}"),
    validation = Rule::new("has(self.custom) == (self.type == 'Custom')")
        .message("custom must be set when type is Custom, and only then, for example {type: Custom, custom: {name: my-writer}}")
)]
pub struct Writer {
    /// Name, unique in the list; used in metrics, logs and dead letter headers.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Stdout: one line per value. File: NDJSON files. Kafka: a topic of the same cluster. Http: batched requests.
    /// Postgres: upserts into a table. Blackhole: discards, for measuring. Custom: code of your own worker image.
    #[serde(rename = "type")]
    pub kind: WriterType,
    /// For type File.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileWriter>,
    /// For type Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaWriter>,
    /// For type Http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpWriter>,
    /// For type Postgres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresWriter>,
    /// For type Custom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Custom>,
}

/// See `writers[].type`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum WriterType {
    Stdout,
    File,
    Kafka,
    Http,
    Postgres,
    Blackhole,
    Custom,
}

/// Appends values as lines to files, one file per worker and partition at a time. Files are synced to disk before
/// offsets are committed; after a crash records may be in two files.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileWriter {
    /// Absolute directory, in a volume of worker.volumeMounts.
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[^\x00]*[^/]$"))]
    pub directory: String,
    /// A file is closed and a new one begun past this size, in bytes.
    #[serde(default = "rotate_bytes")]
    #[schemars(range(min = 4096, max = 1099511627776_i64))]
    pub rotate_bytes: i64,
    /// A file is closed past this age, in seconds.
    #[serde(default = "rotate_seconds")]
    #[schemars(range(min = 1, max = 604800))]
    pub rotate_seconds: i32,
}

fn rotate_bytes() -> i64 {
    128 * 1024 * 1024
}

fn rotate_seconds() -> i32 {
    3600
}

/// Produces to a topic of the same Kafka cluster, idempotently, waiting for all in-sync replicas. Key, headers and
/// timestamp are kept.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaWriter {
    /// Topic to write to; it must exist and must not be an input topic.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[a-zA-Z0-9._-]+$"))]
    pub topic: String,
    /// Compression of record batches.
    #[serde(default)]
    pub compression: Compression,
}

/// See `kafka.compression`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    #[default]
    Lz4,
    Zstd,
}

/// Sends batches to a URL. 2xx: written. 408, 425, 429, 5xx, timeouts and connection errors: tried again until they
/// succeed. 401, 403, 404, 405, 407, 410 and redirects (but 303): tried again slowly, nothing is dead-lettered. Other 4xx:
/// the batch is split until the refused records are found, and those are failed records.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!(has(self.bearerToken) && has(self.basicAuth))")
        .message("at most one of bearerToken and basicAuth may be set")
)]
pub struct HttpWriter {
    /// Where to send, http or https.
    #[schemars(length(min = 8, max = 2048), regex(pattern = "^https?://[^ ]+$"))]
    pub url: String,
    /// POST or PUT.
    #[serde(default)]
    pub method: HttpMethod,
    /// JsonArray: one JSON array of values per request. Ndjson: one value per line. Single: one request per record, the
    /// value as it is, with its record id in the Idempotency-Key header.
    #[serde(default)]
    pub format: HttpFormat,
    /// Extra request headers, not secret ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub headers: Vec<HttpHeader>,
    /// Token sent as "Authorization: Bearer ...".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<SecretKey>,
    /// User name and password sent as basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<SaslCredentials>,
    /// Certificate authority of the server, PEM. Absent: the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSource>,
    /// Time for one request, in seconds.
    #[serde(default = "http_timeout")]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: i32,
}

fn http_timeout() -> i32 {
    30
}

/// See `http.method`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum HttpMethod {
    #[default]
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "PUT")]
    Put,
}

/// See `http.format`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum HttpFormat {
    #[default]
    JsonArray,
    Ndjson,
    Single,
}

/// A request header.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHeader {
    /// Name of the header.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub name: String,
    /// Value of the header.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// Upserts JSON objects into a table: top-level fields go to the columns of the same name. Writing a record twice
/// leaves one row, so redelivery after a crash is harmless.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.recordIdColumn) != (has(self.keyColumns) && size(self.keyColumns) > 0)")
        .message("exactly one of recordIdColumn (one row per record) and keyColumns (one row per key) must be set")
)]
pub struct PostgresWriter {
    /// Secret key that holds the connection URL, "postgresql://user:password@host:5432/database?sslmode=require".
    pub connection: SecretKey,
    /// Table, with or without schema.
    #[schemars(
        length(min = 1, max = 127),
        regex(pattern = r"^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$")
    )]
    pub table: String,
    /// Text column with a unique index that gets the record id "topic-partition-offset"; one row per record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub record_id_column: Option<String>,
    /// Columns of a unique index, taken from the value; a later record with the same key replaces the row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub key_columns: Vec<String>,
    /// What to do with a field that has no column. Reject: the record fails, so nothing is dropped unseen. Ignore: the
    /// field is left out.
    #[serde(default)]
    pub unknown_fields: UnknownFields,
    /// Table for the offsets with deliveryGuarantee ExactlyOnce, with or without schema, in the same database. It must exist;
    /// several groups may share it.
    #[serde(default = "offsets_table")]
    #[schemars(
        length(min = 1, max = 127),
        regex(pattern = r"^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$")
    )]
    pub offsets_table: String,
    /// Time for one batch, in seconds.
    #[serde(default = "statement_timeout")]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: i32,
}

fn offsets_table() -> String {
    "kafka_consumer_offsets".into()
}

fn statement_timeout() -> i32 {
    30
}

/// See `postgres.unknownFields`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum UnknownFields {
    #[default]
    Reject,
    Ignore,
}

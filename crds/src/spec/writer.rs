//! `spec.writers`: where records go. A union; `type` names the one member that must be set.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    kafka::{CaSource, SaslCredentials},
    references::SecretKey,
    transform::Custom,
};

/// A named writer. Set only the member that matches type; Stdout and Blackhole have none.
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
    /// Name of the writer, unique in the list. Used in metrics, logs and dead letter headers.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Kind of writer.
    ///
    /// - Stdout: one line per value on standard output.
    /// - File: NDJSON files.
    /// - Kafka: a topic of the same cluster.
    /// - Http: batched HTTP requests.
    /// - Postgres: upserts into a table.
    /// - Blackhole: discards records, to measure throughput.
    /// - Custom: code of your worker image.
    #[serde(rename = "type")]
    pub kind: WriterType,
    /// Settings of type File. Required with this type, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileWriter>,
    /// Settings of type Kafka. Required with this type, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaWriter>,
    /// Settings of type Http. Required with this type, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpWriter>,
    /// Settings of type Postgres. Required with this type, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresWriter>,
    /// Settings of type Custom, a writer that your worker image registers. Required with this type, not
    /// allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Custom>,
}

/// Values of `writers[].type`.
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

/// Local mode has no containers, so it ignores this rule.
pub const FILE_NEEDS_VOLUME_MESSAGE: &str = "a File writer needs a volume: its directory must lie in a worker.volumeMounts mountPath, because the container's root file system is read-only; add worker.volumes and worker.volumeMounts";

/// Appends values as lines to files, one file per worker and partition at a time. The worker syncs files to
/// disk before it commits offsets. After a crash, records may be in two files.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileWriter {
    /// Absolute path of an existing directory, in a mountPath of worker.volumeMounts.
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[^\x00]*[^/]$"))]
    pub directory: String,
    /// Size, in bytes, after which the worker closes a file and starts a new one. Default: 134217728 (128
    /// MiB).
    #[serde(default = "rotate_bytes")]
    #[schemars(range(min = 4096, max = 1099511627776_i64))]
    pub rotate_bytes: i64,
    /// Age, in seconds, after which the worker closes a file. Default: 3600.
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

/// Produces to a topic of the same Kafka cluster with an idempotent producer that waits for all in-sync
/// replicas (acks=all). Records keep their key, headers and timestamp.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaWriter {
    /// Topic to write to. It must exist and must not be an input topic.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[a-zA-Z0-9._-]+$"))]
    pub topic: String,
    /// Compression of record batches (compression.type). Default: Lz4.
    #[serde(default)]
    pub compression: Compression,
}

/// Values of `kafka.compression`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    #[default]
    Lz4,
    Zstd,
}

/// Sends batches to a URL. The status code of the response decides what the worker does:
///
/// - 2xx: the batch is written.
/// - 408, 425, 429, 5xx, timeouts and connection errors: retry until the request succeeds, and not before
///   the time in Retry-After. A record that fails alone while others are written is a failed record.
/// - 401, 403, 404, 405, 407, 410 and redirects except 303: retry slowly; no record is dead-lettered.
/// - Other 4xx: split the batch until the rejected records are found. These are failed records.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!(has(self.bearerToken) && has(self.basicAuth))")
        .message("at most one of bearerToken and basicAuth may be set")
)]
pub struct HttpWriter {
    /// URL to send to, http or https.
    #[schemars(length(min = 8, max = 2048), regex(pattern = "^https?://[^ ]+$"))]
    pub url: String,
    /// HTTP method. Default: POST.
    #[serde(default)]
    pub method: HttpMethod,
    /// Format of the request body. Default: JsonArray.
    ///
    /// - JsonArray: one JSON array of values per request.
    /// - Ndjson: one value per line.
    /// - Single: one request per record, with the unchanged value as body and the record id in the
    ///   Idempotency-Key header.
    #[serde(default)]
    pub format: HttpFormat,
    /// Additional request headers. Their values are not secret; use bearerToken or basicAuth for credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub headers: Vec<HttpHeader>,
    /// Secret key that holds the token for "Authorization: Bearer ...". Cannot be combined with basicAuth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<SecretKey>,
    /// Secret that holds the user name and the password for basic authentication. Cannot be combined with
    /// bearerToken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<SaslCredentials>,
    /// Certificate authorities (PEM) that the worker trusts for the server's certificate. Default: the
    /// system's root certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSource>,
    /// Whether "results" in a JSON response contains the result of each record. Default: Auto.
    ///
    /// - Auto: an array of objects with a status, one per record of the request, in the same order.
    /// - Ignore: the status code alone decides.
    #[serde(default)]
    pub results: HttpResults,
    /// Timeout of one request, in seconds. Default: 30.
    #[serde(default = "http_timeout")]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: i32,
}

fn http_timeout() -> i32 {
    30
}

/// Values of `http.method`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum HttpMethod {
    #[default]
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "PUT")]
    Put,
}

/// Values of `http.results`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum HttpResults {
    #[default]
    Auto,
    Ignore,
}

/// Values of `http.format`.
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

/// Upserts JSON objects into a table. Top-level fields go to the columns of the same name. Writing a record
/// twice leaves one row, so redelivery after a crash is harmless. Set exactly one of recordIdColumn and
/// keyColumns.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.recordIdColumn) != (has(self.keyColumns) && size(self.keyColumns) > 0)")
        .message("exactly one of recordIdColumn (one row per record) and keyColumns (one row per key) must be set"),
    validation = Rule::new("!has(self.onNull) || self.onNull != 'Delete' || !has(self.recordIdColumn)")
        .message("onNull Delete needs keyColumns: with recordIdColumn, a tombstone has no row to delete")
)]
pub struct PostgresWriter {
    /// Secret key that holds the connection URL, for example
    /// "postgresql://user:password@host:5432/database?sslmode=require".
    pub connection: SecretKey,
    /// Table to write to, with or without schema. It must exist. Names are taken as they are, in upper and
    /// lower case; only a name that contains a dot or a double quote has to be in double quotes, as in SQL.
    #[schemars(length(min = 1, max = 255), regex(pattern = TABLE_NAME))]
    pub table: String,
    /// Text column with a unique index. The worker stores the record id "topic-partition-offset" in it: one
    /// row per record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub record_id_column: Option<String>,
    /// Columns of a unique index. Their values come from the record's value, and each key has one row: a
    /// later record with the same key replaces it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub key_columns: Vec<String>,
    /// What the worker does with a field that has no column. Default: Reject.
    ///
    /// - Reject: the record is a failed record, so that no data is lost silently.
    /// - Ignore: write the row without the field.
    #[serde(default)]
    pub unknown_fields: UnknownFields,
    /// Unit of JSON numbers for columns of date and time types: since 1970-01-01 UTC for date, timestamp and
    /// timestamptz, since midnight for time and timetz, a duration for interval. Without it, a number for such
    /// a column is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<EpochUnit>,
    /// What the worker does with several records of one key in a batch. Default: LastPerKey.
    ///
    /// - LastPerKey: only the last of those with the same columns reaches the database.
    /// - None: every record reaches the database, in order, so that triggers see each of them.
    #[serde(default)]
    pub merge: Merge,
    /// What the worker does with a record without a value (a tombstone). Default: Reject.
    ///
    /// - Reject: the record is a failed record.
    /// - Delete: delete the row of the record's key. Needs keyColumns. The key of the record must be a JSON
    ///   object with these columns, or with one key column the value itself.
    #[serde(default)]
    pub on_null: OnNull,
    /// Table for the offsets with deliveryGuarantee ExactlyOnce, with or without schema, in the same
    /// database. It must exist. Several groups may share it. Default: kafka_consumer_offsets.
    #[serde(default = "offsets_table")]
    #[schemars(length(min = 1, max = 255), regex(pattern = TABLE_NAME))]
    pub offsets_table: String,
    /// Timeout of one batch, in seconds. Default: 30.
    #[serde(default = "statement_timeout")]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: i32,
}

/// A table with or without schema. PostgreSQL cuts names at 63 bytes.
const TABLE_NAME: &str = r#"^([^."[:cntrl:]]{1,63}|"([^"[:cntrl:]]|""){1,63}")(\.([^."[:cntrl:]]{1,63}|"([^"[:cntrl:]]|""){1,63}"))?$"#;

fn offsets_table() -> String {
    "kafka_consumer_offsets".into()
}

fn statement_timeout() -> i32 {
    30
}

/// Values of `postgres.epoch`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum EpochUnit {
    Seconds,
    Milliseconds,
    Microseconds,
}

/// Values of `postgres.merge`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Merge {
    #[default]
    LastPerKey,
    None,
}

/// Values of `postgres.onNull`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum OnNull {
    #[default]
    Reject,
    Delete,
}

/// Values of `postgres.unknownFields`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum UnknownFields {
    #[default]
    Reject,
    Ignore,
}

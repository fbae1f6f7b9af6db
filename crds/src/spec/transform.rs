//! `spec.transforms`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fields::Fields, references::ConfigMapKey};

/// A named transform.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.vrl) == (self.type == 'Vrl')")
        .message("vrl must be set when type is Vrl, and only then, for example {type: Vrl, vrl: {source: '.seen = true'}}"),
    validation = Rule::new("has(self.fields) == (self.type == 'Fields')")
        .message("fields must be set when type is Fields, and only then, for example {type: Fields, fields: {drop: [note]}}"),
    validation = Rule::new("has(self.custom) == (self.type == 'Custom')")
        .message("custom must be set when type is Custom, and only then, for example {type: Custom, custom: {name: my-transform}}")
)]
pub struct Transform {
    /// Name, unique in the list; used in metrics, logs and dead letter headers.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Vrl: a program in the Vector Remap Language. Fields: drops, renames, converts and sets top-level fields of JSON objects
    /// without a program, several times faster. Custom: code that your own worker image registers by name.
    #[serde(rename = "type")]
    pub kind: TransformType,
    /// For type Vrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrl: Option<Vrl>,
    /// For type Fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Fields>,
    /// For type Custom: a transform registered by your own worker image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Custom>,
}

/// See `transforms[].type`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum TransformType {
    Vrl,
    Fields,
    Custom,
}

/// A VRL program. `.` is the decoded value, `%` holds topic, partition, offset, timestamp, key and headers; `abort`
/// drops the record; assigning an array to `.` writes one record per element.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.source) != has(self.configMap)")
        .message("exactly one of source and configMap must be set")
)]
pub struct Vrl {
    /// The program's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub source: Option<String>,
    /// ConfigMap key that holds the program's text; a change rolls the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,
}

/// A type registered by a user's own worker binary.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Custom {
    /// Name under which the worker registered it.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Settings handed to it, as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub config: Option<serde_json::Value>,
}

pub(super) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

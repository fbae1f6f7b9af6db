//! `spec.transforms`: a union; `type` names the one member that must be set.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fields::Fields, references::ConfigMapKey};

/// A named transform. Set only the member that matches type.
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
    /// Name of the transform, unique in the list. Used in metrics, logs and dead letter headers.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Kind of transform.
    ///
    /// - Vrl: a program in the Vector Remap Language.
    /// - Fields: drops, renames, converts and sets top-level fields of JSON objects without a program,
    ///   several times faster.
    /// - Custom: code that your worker image registers by name.
    #[serde(rename = "type")]
    pub kind: TransformType,
    /// Settings of type Vrl. Required with this type, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrl: Option<Vrl>,
    /// Settings of type Fields. Required with this type, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Fields>,
    /// Settings of type Custom, a transform that your worker image registers. Required with this type, not
    /// allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Custom>,
}

/// Values of `transforms[].type`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum TransformType {
    Vrl,
    Fields,
    Custom,
}

/// A VRL program. `.` is the decoded value; `%` holds topic, partition, offset, timestamp, key and headers.
/// `abort` drops the record. Assigning an array to `.` writes one record per element. Set exactly one of
/// source and configMap.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.source) != has(self.configMap)")
        .message("exactly one of source and configMap must be set")
)]
pub struct Vrl {
    /// Source text of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub source: Option<String>,
    /// ConfigMap key that holds the source text of the program. A change restarts the workers in a rolling
    /// update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,
    /// What happens to JSON numbers that neither 64-bit integers nor 64-bit floats can hold. Programs see
    /// 64-bit floats in their place. Default: Exact.
    ///
    /// - Exact: numbers that a program moves, copies or does not touch keep their digits. A record fails if
    ///   its program computes with such a number and assigns the result.
    /// - Lossy: all numbers that are written again are 64-bit numbers, so such numbers lose digits.
    #[serde(default)]
    pub numbers: VrlNumbers,
}

/// Values of `transforms[].vrl.numbers`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum VrlNumbers {
    #[default]
    Exact,
    Lossy,
}

/// A transform or writer that a custom worker binary registers.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Custom {
    /// Name under which the worker registers it.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Settings that the worker passes to it unchanged. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub config: Option<serde_json::Value>,
}

pub(super) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

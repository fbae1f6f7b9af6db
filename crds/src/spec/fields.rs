//! `spec.transforms[].fields`: drops, renames, converts and sets top-level fields of JSON objects, without a
//! program.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Changes top-level fields of values that are JSON objects. The content of a field stays the same, byte for
/// byte. The steps run in this order: keep or drop, rename, convert, set, setFromRecord. Steps ignore fields
/// that a value does not have. Null values (tombstones) pass unchanged. A value that is not a JSON object is
/// a failed record.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    // Templates render empty maps. They do no harm beside a step with an entry, so the rule accepts them
    // there.
    validation = Rule::new("has(self.keep) || has(self.drop) || (has(self.rename) && size(self.rename) > 0) || (has(self.convert) && size(self.convert) > 0) || (has(self.set) && size(self.set) > 0) || (has(self.setFromRecord) && size(self.setFromRecord) > 0)")
        .message("fields changes nothing; add at least one entry to keep, drop, rename, convert, set or setFromRecord, for example {drop: [note]}"),
    validation = Rule::new("!(has(self.keep) && has(self.drop))")
        .message("at most one of keep and drop may be set; keep drops every field that it does not name"),
    validation = Rule::new("!has(self.rename) || self.rename.all(a, self.rename.exists_one(b, self.rename[b] == self.rename[a]))")
        .message("rename gives two fields the same name; use different names"),
    validation = Rule::new("!has(self.rename) || !has(self.drop) || self.drop.all(d, !(d in self.rename))")
        .message("rename names a field that drop removes; remove it from one of them"),
    validation = Rule::new("!has(self.rename) || !has(self.keep) || self.rename.all(r, r in self.keep)")
        .message("rename names a field that keep does not; add the field, with its old name, to keep"),
    validation = Rule::new("!has(self.convert) || self.convert.all(c, (has(self.rename) && self.rename.exists(r, self.rename[r] == c)) || ((!has(self.drop) || !(c in self.drop)) && (!has(self.keep) || c in self.keep) && (!has(self.rename) || !(c in self.rename))))")
        .message("convert names a field that is not there after drop, keep and rename; use its name after rename, or do not remove it"),
    validation = Rule::new("!has(self.set) || !has(self.setFromRecord) || self.set.all(n, !(n in self.setFromRecord))")
        .message("a field is in both set and setFromRecord; remove it from one of them"),
    validation = Rule::new("!has(self.convert) || self.convert.all(c, (!has(self.set) || !(c in self.set)) && (!has(self.setFromRecord) || !(c in self.setFromRecord)))")
        .message("convert names a field that set or setFromRecord replaces; remove it from convert"),
    validation = Rule::new("!has(self.rename) || self.rename.all(r, (!has(self.set) || !(self.rename[r] in self.set)) && (!has(self.setFromRecord) || !(self.rename[r] in self.setFromRecord)))")
        .message("rename gives a field a name that set or setFromRecord replaces; use another name in one of them")
)]
pub struct Fields {
    /// Fields to keep, by their names in the input. All other fields are removed. Cannot be combined with
    /// drop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 128)))]
    pub keep: Vec<String>,
    /// Fields to remove, by their names in the input. Cannot be combined with keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 128)))]
    pub drop: Vec<String>,
    /// Map of old name to new name. All renames happen at once, so two fields can swap their names. If a
    /// renamed field gets the name of a field that is not renamed, the field that is not renamed is removed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "new_names")]
    pub rename: BTreeMap<String, String>,
    /// Map of field name, after rename, to type. Nulls stay null. A record with a value
    /// that cannot be converted exactly is a failed record.
    ///
    /// - String: numbers become strings with the same digits; booleans become "true" and "false".
    /// - Number: a string that is exactly a JSON number becomes this number, digit by digit.
    /// - Boolean: the strings "true" and "false" become booleans.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub convert: BTreeMap<String, FieldType>,
    /// Map of field name to a string or an integer. Replaces the value of an existing field at its position;
    /// otherwise adds the field after all others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub set: BTreeMap<String, FieldValue>,
    /// Map of field name to a part of the Kafka record. Otherwise like set.
    ///
    /// - Topic: the topic, a string.
    /// - Partition, Offset: numbers.
    /// - Timestamp: a string in UTC, "2026-01-31T23:59:59.123Z"; null if the record has no timestamp.
    /// - TimestampMilliseconds: the same as a number, in milliseconds since 1970.
    /// - Key: the JSON document of the key if decode.key.type is Json, otherwise its text; null if the record
    ///   has no key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub set_from_record: BTreeMap<String, RecordPart>,
}

impl Fields {
    /// All contradictions between the steps: what the rules above reject, with the names of the fields.
    pub fn contradictions(&self) -> Vec<String> {
        let Fields {
            keep,
            drop,
            rename,
            convert,
            set,
            set_from_record,
        } = self;
        let mut found = Vec::new();
        if *self == Fields::default() {
            found.push("changes nothing; add at least one step, for example {\"drop\": [\"note\"]}".into());
        }
        if !keep.is_empty() && !drop.is_empty() {
            found.push("keep and drop are both set; keep drops every field that it does not name".into());
        }
        let dropped = |name: &String| drop.contains(name) || !(keep.is_empty() || keep.contains(name));
        let added = |name: &String| set.contains_key(name) || set_from_record.contains_key(name);
        let mut new_names: Vec<&String> = rename.values().collect();
        new_names.sort();
        for twice in new_names.windows(2).filter(|pair| pair[0] == pair[1]) {
            found.push(format!(
                "rename gives two fields the name {:?}; use different names",
                twice[0]
            ));
        }
        for (old, new) in rename {
            if dropped(old) {
                found.push(format!(
                    "rename names {old:?}, which drop removes or keep does not name; keep it under its old name, or do not rename it"
                ));
            }
            if added(new) {
                found.push(format!(
                    "rename makes {old:?} a field {new:?}, which set or setFromRecord replaces; use another name"
                ));
            }
        }
        for name in convert.keys() {
            if !new_names.contains(&name) && (dropped(name) || rename.contains_key(name)) {
                found.push(format!(
                    "convert names {name:?}, which is not there after drop, keep and rename; use its name after rename"
                ));
            }
            if added(name) {
                found.push(format!(
                    "convert names {name:?}, which set or setFromRecord replaces; remove it from convert"
                ));
            }
        }
        for name in set.keys().filter(|name| set_from_record.contains_key(*name)) {
            found.push(format!(
                "{name:?} is in both set and setFromRecord; remove it from one of them"
            ));
        }
        found
    }
}

/// Values of `fields.convert`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum FieldType {
    String,
    Number,
    Boolean,
}

impl FieldType {
    /// The name in the resource.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldType::String => "String",
            FieldType::Number => "Number",
            FieldType::Boolean => "Boolean",
        }
    }
}

/// A value of `fields.set`. Only strings and integers, because a structural schema has no other union of
/// types.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(
    untagged,
    expecting = "a value of set must be a string or an integer of 64 bits; quote it, or use type Vrl"
)]
pub enum FieldValue {
    Integer(i64),
    String(String),
}

impl JsonSchema for FieldValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FieldValue".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 4096})
    }
}

/// Values of `fields.setFromRecord`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum RecordPart {
    Topic,
    Partition,
    Offset,
    Timestamp,
    TimestampMilliseconds,
    Key,
}

/// Has bounds, because the API server needs them to estimate the cost of the rules that compare names.
fn new_names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 128},
        "maxProperties": 64
    })
}

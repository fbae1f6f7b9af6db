//! `spec.transforms[].fields`: changes of the top-level fields of JSON objects, without a program.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Changes top-level fields of values that are JSON objects; what is inside a field stays as it is, byte for byte. The
/// steps are done in the order of the members here. A field that is not there is not missed. Null values (tombstones) pass
/// as they are; a value that is no JSON object is a failed record.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    // Templates render empty maps. Beside a step that does something they do no harm, so they are not refused by themselves.
    validation = Rule::new("has(self.keep) || has(self.drop) || (has(self.rename) && size(self.rename) > 0) || (has(self.convert) && size(self.convert) > 0) || (has(self.set) && size(self.set) > 0) || (has(self.setFromRecord) && size(self.setFromRecord) > 0)")
        .message("fields changes nothing; write at least one entry into keep, drop, rename, convert, set or setFromRecord, for example {drop: [note]}"),
    validation = Rule::new("!(has(self.keep) && has(self.drop))")
        .message("at most one of keep and drop may be set; keep drops every field that it does not name"),
    validation = Rule::new("!has(self.rename) || self.rename.all(a, self.rename.exists_one(b, self.rename[b] == self.rename[a]))")
        .message("rename gives two fields the same name; give each a name of its own"),
    validation = Rule::new("!has(self.rename) || !has(self.drop) || self.drop.all(d, !(d in self.rename))")
        .message("rename names a field that drop removes; take it out of one of them"),
    validation = Rule::new("!has(self.rename) || !has(self.keep) || self.rename.all(r, r in self.keep)")
        .message("rename names a field that keep does not; add the field, with its old name, to keep"),
    validation = Rule::new("!has(self.convert) || self.convert.all(c, (has(self.rename) && self.rename.exists(r, self.rename[r] == c)) || ((!has(self.drop) || !(c in self.drop)) && (!has(self.keep) || c in self.keep) && (!has(self.rename) || !(c in self.rename))))")
        .message("convert names a field that is not there after drop, keep and rename; write the name that it has then, or do not remove it"),
    validation = Rule::new("!has(self.set) || !has(self.setFromRecord) || self.set.all(n, !(n in self.setFromRecord))")
        .message("a field is in both set and setFromRecord; take it out of one of them"),
    validation = Rule::new("!has(self.convert) || self.convert.all(c, (!has(self.set) || !(c in self.set)) && (!has(self.setFromRecord) || !(c in self.setFromRecord)))")
        .message("convert names a field that set or setFromRecord replaces; take it out of convert"),
    validation = Rule::new("!has(self.rename) || self.rename.all(r, (!has(self.set) || !(self.rename[r] in self.set)) && (!has(self.setFromRecord) || !(self.rename[r] in self.setFromRecord)))")
        .message("rename gives a field a name that set or setFromRecord replaces; use another name in one of them")
)]
pub struct Fields {
    /// Fields to keep, by their names in the input; all others are removed. Not together with drop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 128)))]
    pub keep: Vec<String>,
    /// Fields to remove, by their names in the input. Not together with keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 128)))]
    pub drop: Vec<String>,
    /// Old name to new name, all at once, so that names can be exchanged. A field that keeps its name and is called like the
    /// new one is removed when there is one that gets this name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "new_names")]
    pub rename: BTreeMap<String, String>,
    /// Name, as it is after rename, to type. Nulls stay null; what cannot be converted without a guess is a failed record.
    /// String: numbers become strings with the same digits, booleans "true" and "false". Number: strings that are exactly a
    /// JSON number become this number, digit by digit. Boolean: the strings "true" and "false" become booleans.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub convert: BTreeMap<String, FieldType>,
    /// Name to a string or an integer: replaces the value of a field of this name where it stands, else becomes a new field
    /// behind all others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub set: BTreeMap<String, FieldValue>,
    /// Like set, with something that Kafka knows of the record. Topic: a string. Partition, Offset: numbers. Timestamp: a
    /// string in UTC, "2026-01-31T23:59:59.123Z", null when the record has none. TimestampMilliseconds: the same as a number,
    /// milliseconds since 1970. Key: the key's document when decode.key.type is Json, else its text; null when the record
    /// has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub set_from_record: BTreeMap<String, RecordPart>,
}

impl Fields {
    /// Everything in it that does not go together: what the rules above refuse, with the names.
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
            found.push("changes nothing; write at least one step, for example {\"drop\": [\"note\"]}".into());
        }
        if !keep.is_empty() && !drop.is_empty() {
            found.push("keep and drop are both there; keep drops every field that it does not name".into());
        }
        let dropped = |name: &String| drop.contains(name) || !(keep.is_empty() || keep.contains(name));
        let added = |name: &String| set.contains_key(name) || set_from_record.contains_key(name);
        let mut new_names: Vec<&String> = rename.values().collect();
        new_names.sort();
        for twice in new_names.windows(2).filter(|pair| pair[0] == pair[1]) {
            found.push(format!(
                "rename gives two fields the name {:?}; give each a name of its own",
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
                    "convert names {name:?}, which is not there after drop, keep and rename; write the name that it has then"
                ));
            }
            if added(name) {
                found.push(format!(
                    "convert names {name:?}, which set or setFromRecord replaces; take it out of convert"
                ));
            }
        }
        for name in set.keys().filter(|name| set_from_record.contains_key(*name)) {
            found.push(format!(
                "{name:?} is in both set and setFromRecord; take it out of one of them"
            ));
        }
        found
    }
}

/// See `fields.convert`.
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

/// A value of `fields.set`: what the schema of a resource can tell from everything else, so no booleans, no decimals.
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

/// See `fields.setFromRecord`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum RecordPart {
    Topic,
    Partition,
    Offset,
    Timestamp,
    TimestampMilliseconds,
    Key,
}

/// Bounded, else the API server could not price the rules that compare them.
fn new_names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 128},
        "maxProperties": 64
    })
}

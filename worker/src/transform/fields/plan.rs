//! Builds a lookup table from `transforms[].fields`: what happens to a field of a given name, and which
//! fields are added. It is built once. It refuses nothing, because validation has refused contradictions.

use std::collections::BTreeMap;

use crds::spec::{FieldType, FieldValue, Fields, RecordPart};

/// Names from this length on share a bucket.
const LONG: usize = 128;

/// All steps of the transform.
#[derive(Debug)]
pub(super) struct Plan {
    /// Ordered by bucket, so that a name is compared with few entries.
    entries: Vec<Entry>,
    /// The first entry of each bucket, and the one after its last.
    buckets: Vec<(u16, u16)>,
    /// In the order in which they are written.
    pub additions: Vec<Addition>,
    /// Fields that are not named are kept.
    pub keeps_others: bool,
}

/// What happens to a field that a step names.
#[derive(Debug)]
pub(super) struct Entry {
    name: String,
    pub dropped: bool,
    /// It is neither renamed nor converted nor replaced.
    pub plain: bool,
    /// Its name in the output.
    pub output: String,
    /// The output name as JSON with its colon, when it is a new one.
    pub key: Option<String>,
    pub convert: Option<FieldType>,
    /// The addition that its value is replaced by.
    pub replaced: Option<usize>,
    /// The field that gets this field's name, and removes it.
    pub rival: Option<usize>,
}

/// A field that every output has.
#[derive(Debug)]
pub(super) struct Addition {
    /// Its name as JSON with its colon.
    pub key: String,
    pub value: Added,
}

/// Where the value of an addition comes from.
#[derive(Debug)]
pub(super) enum Added {
    /// JSON.
    Constant(String),
    Record(RecordPart),
}

impl Plan {
    pub fn new(fields: &Fields) -> Self {
        let mut additions = BTreeMap::new();
        for (name, value) in &fields.set {
            let value = match value {
                FieldValue::Integer(number) => number.to_string(),
                FieldValue::String(text) => quoted(text),
            };
            additions.insert((0, name), Added::Constant(value));
        }
        for (name, part) in &fields.set_from_record {
            additions.insert((1, name), Added::Record(*part));
        }
        let added: Vec<&String> = additions.keys().map(|(_, name)| *name).collect();

        let mut names: Vec<&String> = (fields.keep.iter().chain(&fields.drop))
            .chain(fields.rename.iter().flat_map(|(old, new)| [old, new]))
            .chain(fields.convert.keys())
            .chain(added.iter().copied())
            .collect();
        names.sort_by_key(|name| (bucket(name), *name));
        names.dedup();

        let keeps_others = fields.keep.is_empty();
        let place = |name: &String| names.iter().position(|other| *other == name);
        let entry = |name: &&String| {
            let new = fields.rename.get(*name);
            let output = new.unwrap_or(name);
            let rival = fields.rename.iter().find(|(_, to)| new.is_none() && to == name);
            let convert = fields.convert.get(output).copied();
            let replaced = added.iter().position(|added| *added == output);
            Entry {
                name: name.to_string(),
                dropped: fields.drop.contains(name) || !(keeps_others || fields.keep.contains(name)),
                plain: new.is_none() && convert.is_none() && replaced.is_none(),
                output: output.clone(),
                key: new.map(|new| key(new)),
                convert,
                replaced,
                rival: rival.and_then(|(from, _)| place(from)),
            }
        };
        let entries: Vec<Entry> = names.iter().map(entry).collect();
        Self {
            buckets: buckets(&entries),
            entries,
            additions: additions
                .into_iter()
                .map(|((_, name), value)| Addition {
                    key: key(name),
                    value,
                })
                .collect(),
            keeps_others,
        }
    }

    /// The entry of a field, by its name without escapes.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let (first, end) = *self.buckets.get(name.len().min(LONG))?;
        (usize::from(first)..usize::from(end)).find(|&index| self.entries[index].name.as_bytes() == name)
    }

    pub fn entry(&self, index: usize) -> &Entry {
        &self.entries[index]
    }

    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Estimated size of all additions in bytes; parts of the record count as 32.
    pub fn added_bytes(&self) -> usize {
        let value = |addition: &Addition| match &addition.value {
            Added::Constant(text) => text.len(),
            Added::Record(_) => 32,
        };
        (self.additions.iter())
            .map(|addition| addition.key.len() + value(addition) + 1)
            .sum()
    }
}

fn bucket(name: &str) -> usize {
    name.len().min(LONG)
}

fn buckets(entries: &[Entry]) -> Vec<(u16, u16)> {
    let longest = entries.last().map_or(0, |last| bucket(&last.name) + 1);
    let place = |length| entries.partition_point(|entry| bucket(&entry.name) < length) as u16;
    (0..longest)
        .map(|length| (place(length), place(length + 1)))
        .collect()
}

fn key(name: &str) -> String {
    quoted(name) + ":"
}

/// A string as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

//! Transforms of type Fields drop, rename, convert and set top-level fields of JSON objects, in one pass over
//! the bytes and without a tree. In: a value that is a JSON object, or null, which passes unchanged. Out: one
//! object without space between its members. Values that are not converted or set are copied byte for byte,
//! and so are names that are not changed. Documents that the decoder Json would refuse, values other than
//! objects, and values that cannot be converted fail the record; errors name the field and never quote a
//! value. `crds::spec::Fields` describes each step, docs/fields.md in full.

mod convert;
mod members;
mod plan;
mod record;
mod scan;

use std::sync::Arc;

use crds::spec::{Decode, DecoderType};

use self::{
    members::{Members, NoMembers},
    plan::{Added, Addition, Plan},
};
use super::Transform;
use crate::{
    decode,
    record::{
        batch::{
            Batch, OutputRecord,
            builder::{BatchBuilder, Payload},
        },
        failure::Stage,
    },
};

/// One transform of type Fields.
#[derive(Debug)]
pub struct Fields {
    name: Arc<str>,
    plan: Plan,
    key: DecoderType,
    /// It decodes the values, because it is the first transform.
    decodes: bool,
    value_component: Arc<str>,
}

/// Why a record has no output.
struct FieldsFailure {
    stage: Stage,
    message: String,
}

/// Memory that is reused for each record.
#[derive(Default)]
struct Scratch {
    members: Members,
    /// Per addition: whether it has replaced a value.
    written: Vec<bool>,
    out: Vec<u8>,
}

impl Fields {
    /// Prepares the transform. `first` is true if no transform comes before, so that values have not been
    /// decoded yet.
    pub fn new(name: &str, fields: &crds::spec::Fields, decode: &Decode, first: bool) -> Self {
        Self {
            name: name.into(),
            plan: Plan::new(fields),
            key: decode.key.kind,
            decodes: first && decode.value.kind == DecoderType::Json,
            value_component: "value".into(),
        }
    }

    /// Writes the object that this document becomes.
    fn change(
        &self,
        document: &[u8],
        record: &OutputRecord<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), FieldsFailure> {
        if std::str::from_utf8(document).is_err() {
            return Err(self.not_json(document));
        }
        match scratch.members.read(document, &self.plan) {
            Ok(()) => {}
            Err(NoMembers::NotJson) => return Err(self.not_json(document)),
            Err(NoMembers::NotObject(kind)) => {
                return Err(failed(format!("the value is {kind}; Fields needs an object")));
            }
        }
        self.write(document, record, scratch).map_err(failed)
    }

    fn write(&self, document: &[u8], record: &OutputRecord<'_>, scratch: &mut Scratch) -> Result<(), String> {
        let Scratch {
            members,
            written,
            out,
        } = scratch;
        written.clear();
        written.resize(self.plan.additions.len(), false);
        out.clear();
        out.reserve(document.len() + self.plan.added_bytes() + 2);
        out.push(b'{');
        // Unchanged neighbors up to the end of the last value, which are copied together.
        let mut run = 0..0;
        for member in members.list() {
            let value = member.value;
            let entry = member.entry.map(|entry| self.plan.entry(entry as usize));
            if entry
                .and_then(|entry| entry.rival)
                .is_some_and(|rival| members.has(rival))
            {
                continue;
            }
            // A member with space between name and value, or with the value of a repetition, is not part of a
            // run.
            if entry.is_none_or(|entry| entry.plain) && value.start == member.key.end + 1 {
                let (start, end) = (member.key.start as usize, value.end as usize);
                if run.end + 1 != start || run.end == 0 {
                    flush(document, &mut run, out);
                    run.start = start;
                }
                run.end = end;
                continue;
            }
            flush(document, &mut run, out);
            match entry.and_then(|entry| entry.key.as_ref()) {
                Some(key) => out.extend_from_slice(key.as_bytes()),
                None => {
                    out.extend_from_slice(member.key.of(document));
                    out.push(b':');
                }
            }
            let value = value.of(document);
            match entry.map(|entry| (entry.replaced, entry.convert, &entry.output)) {
                Some((Some(addition), ..)) => {
                    written[addition] = true;
                    self.add(&self.plan.additions[addition], record, out)?;
                }
                Some((None, Some(to), name)) => convert::convert(value, to, out)
                    .map_err(|fault| format!("field {name:?} cannot become a {}: {fault}", to.as_str()))?,
                _ => out.extend_from_slice(value),
            }
            out.push(b',');
        }
        flush(document, &mut run, out);
        for (addition, _) in (self.plan.additions.iter().zip(&*written)).filter(|(_, written)| !**written) {
            out.extend_from_slice(addition.key.as_bytes());
            self.add(addition, record, out)?;
            out.push(b',');
        }
        match out.last_mut() {
            Some(last @ b',') => *last = b'}',
            _ => out.push(b'}'),
        }
        Ok(())
    }

    fn add(&self, addition: &Addition, record: &OutputRecord<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        match &addition.value {
            Added::Constant(json) => out.extend_from_slice(json.as_bytes()),
            Added::Record(part) => record::write(*part, record, self.key, out).map_err(|fault| {
                format!(
                    "field {} cannot be set: {fault}",
                    addition.key.trim_end_matches(':')
                )
            })?,
        }
        Ok(())
    }

    /// The decoder's message. The decoder runs again, because only failures need the message.
    fn not_json(&self, document: &[u8]) -> FieldsFailure {
        let fault = decode::check(DecoderType::Json, Some(document));
        let fault = fault.err().unwrap_or_else(|| "is not JSON".into());
        if self.decodes {
            FieldsFailure {
                stage: Stage::Decode,
                message: fault,
            }
        } else {
            failed(format!("the value from the previous transform {fault}"))
        }
    }
}

fn failed(message: String) -> FieldsFailure {
    FieldsFailure {
        stage: Stage::Transform,
        message,
    }
}

/// Writes a run of members, followed by a comma.
fn flush(document: &[u8], run: &mut std::ops::Range<usize>, out: &mut Vec<u8>) {
    if run.end > 0 {
        out.extend_from_slice(&document[run.clone()]);
        out.push(b',');
        *run = 0..0;
    }
}

impl Transform for Fields {
    fn apply(&self, input: &Batch, output: &mut BatchBuilder<'_>) {
        let mut scratch = Scratch::default();
        for (from, record) in input.outputs().enumerate() {
            let Some(document) = record.value else {
                output.emit(from, Payload::Keep, Payload::Keep);
                continue;
            };
            match self.change(document, &record, &mut scratch) {
                Ok(()) => output.emit(from, Payload::Keep, Payload::New(&scratch.out)),
                Err(FieldsFailure { stage, message }) => {
                    let component = match stage {
                        Stage::Decode => &self.value_component,
                        _ => &self.name,
                    };
                    output.fail(from, stage, component, message);
                }
            }
        }
    }

    fn decodes_values(&self) -> bool {
        self.decodes
    }

    fn reads_headers(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;

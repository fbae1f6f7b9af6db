//! Transforms in the Vector Remap Language (VRL). Programs are compiled once and run for every record.
//! Consecutive VRL transforms form one [`VrlChain`] and pass `.` and `%` to the next program unchanged, so a
//! record is parsed and written once for any number of programs. A program can access only its record: no
//! network, no files, no environment (`crds::vrl_program`).
//!
//! **`.`** is the value in the format of `spec.decode.value`: the parsed document for Json, a string for
//! String and Bytes, null for a tombstone. Bytes from an earlier custom transform are read the same way; if
//! they do not parse, the record fails. **`%`** is an object with `topic`, `partition`, `offset`, `timestamp`
//! (null if the record has none), `key` (in the format of `spec.decode.key`) and `headers` (the last value of
//! each name). Assigning `%key` changes the key. The following programs of the chain see other changes of
//! `%`, which are then dropped.
//!
//! The final `.` becomes the value: null becomes a tombstone; a string becomes its bytes if values are String
//! or Bytes; anything else becomes compact JSON. `abort` filters the record out. A program that assigns `.`
//! and leaves an array there makes one output of each element, and none of an empty array. A runtime error
//! fails the record. A value of which the programs assign and delete nothing is kept byte for byte. Other
//! JSON is rewritten: keys are sorted, the last of repeated keys is kept. Numbers that the programs do not
//! compute keep their digits (`numbers`). Time functions use UTC.

mod document;
mod flows;
mod json;
mod metadata;
mod numbers;
mod parse_json;

use std::sync::Arc;

use ::vrl::{
    compiler::{
        ExpressionError, Program, TimeZone,
        runtime::{Runtime, Terminate},
    },
    path::PathPrefix,
    value::Value,
};
use crds::{
    spec::{Decode, DecoderType, VrlNumbers},
    vrl_program::{self, InvalidProgram},
};

use self::{
    document::Document,
    flows::Flows,
    metadata::{Metadata, MetadataParts},
};
use super::Transform;
use crate::{
    decode::not_json,
    record::{
        batch::{
            Batch, OutputRecord,
            builder::{BatchBuilder, Payload},
        },
        failure::Stage,
    },
};

/// Maximum length of an error message in bytes; dead letter headers and status show it.
const MAX_MESSAGE: usize = 1024;

/// One or several VRL transforms that follow each other.
pub struct VrlChain {
    programs: Vec<NamedProgram>,
    key: DecoderType,
    value: DecoderType,
    first: bool,
    numbers: VrlNumbers,
    parts: MetadataParts,
    changes: Changes,
    timezone: TimeZone,
    value_component: Arc<str>,
}

struct NamedProgram {
    name: Arc<str>,
    program: Program,
    flows: Flows,
    /// It assigns `.` itself, so an array there means several outputs.
    splits: bool,
}

/// What of `%` the programs may change. Everything else is kept without being checked.
#[derive(Clone, Copy, Default)]
struct Changes {
    metadata: bool,
    key: bool,
}

/// Why a record has no more outputs.
enum Stop {
    Failed(Stage, Arc<str>, String),
}

impl VrlChain {
    /// Compiles `programs`, which are pairs of name and source. `first` is true if no transform comes before,
    /// so that values have not been decoded yet. An error includes the name of the program.
    pub fn compile(
        programs: &[(&str, &str)],
        numbers: VrlNumbers,
        decode: &Decode,
        first: bool,
    ) -> Result<Self, (String, InvalidProgram)> {
        let mut chain = Self {
            programs: Vec::with_capacity(programs.len()),
            key: decode.key.kind,
            value: decode.value.kind,
            first,
            numbers,
            parts: MetadataParts::default(),
            changes: Changes::default(),
            timezone: TimeZone::parse("UTC").unwrap_or_default(),
            value_component: "value".into(),
        };
        for (name, source) in programs {
            let mut functions = vrl_program::functions();
            if numbers == VrlNumbers::Exact {
                parse_json::replace_in(&mut functions);
            }
            let compiled =
                vrl_program::compile_with(source, functions).map_err(|error| ((*name).to_string(), error))?;
            if let Some(warnings) = compiled.warnings {
                tracing::warn!(
                    transform = name,
                    "the VRL compiler warns about transform {name}:\n{warnings}"
                );
            }
            chain.add(name, source, compiled.program);
        }
        Ok(chain)
    }

    fn add(&mut self, name: &str, source: &str, program: Program) {
        let info = program.info();
        let assigns = |prefix| {
            info.target_assignments
                .iter()
                .filter(move |path| path.prefix == prefix)
        };
        let flows = Flows::of(source);
        self.parts
            .add(info.target_queries.iter().chain(&info.target_assignments));
        // `del` is the only function that changes its argument.
        self.changes.metadata |= flows.deletes_metadata || assigns(PathPrefix::Metadata).next().is_some();
        self.changes.key = self.changes.metadata && self.parts.key;
        let splits = assigns(PathPrefix::Event).any(|path| path.path.is_root());
        self.programs.push(NamedProgram {
            name: name.into(),
            program,
            flows,
            splits,
        });
    }

    /// The names of the programs, joined by "+": the name of the chain in metrics.
    pub fn name(&self) -> String {
        self.programs
            .iter()
            .map(|program| &*program.name)
            .collect::<Vec<_>>()
            .join("+")
    }

    /// Runs the programs from index `at` and calls `emit` for every output.
    fn run<'c>(
        &'c self,
        at: usize,
        runtime: &mut Runtime,
        document: &mut Document<'c>,
        emit: &mut dyn FnMut(&Document<'_>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        for (at, step) in self.programs.iter().enumerate().skip(at) {
            runtime.clear();
            document.start_program(&step.flows);
            match runtime.resolve(document, &step.program, &self.timezone) {
                Ok(_) => {}
                Err(Terminate::Abort(ExpressionError::Abort { .. })) => return Ok(()),
                Err(error) => {
                    return Err(Stop::Failed(
                        Stage::Transform,
                        step.name.clone(),
                        trim(without_values(&error.to_string())),
                    ));
                }
            }
            if let Some(path) = document.lost.take() {
                return Err(Stop::Failed(
                    Stage::Transform,
                    step.name.clone(),
                    trim(format!(
                        "the assignment to {path} computes with a number that needs more than 64 bits and \
                         would lose digits; copy the number as it is, make it a string in the input, or set \
                         numbers: Lossy on the transform"
                    )),
                ));
            }
            if step.splits && matches!(document.target.value, Value::Array(_)) {
                let value = std::mem::replace(&mut document.target.value, Value::Null);
                let Value::Array(elements) = value else {
                    return Ok(());
                };
                let metadata = document.target.metadata.clone();
                // The array may be the one that came in: the assignment need not have run.
                document.changed = true;
                for element in elements {
                    document.target.value = element;
                    if self.changes.metadata {
                        document.target.metadata = metadata.clone();
                    }
                    self.run(at + 1, runtime, document, emit)?;
                }
                return Ok(());
            }
        }
        emit(document)
    }

    /// Notes the numbers of the JSON documents that [`Self::parse`] is going to read.
    fn read_numbers(&self, record: &OutputRecord<'_>, document: &mut Document<'_>) {
        if self.numbers == VrlNumbers::Lossy {
            return;
        }
        let reads_key = self.parts.key && self.key == DecoderType::Json;
        let reads_value = self.value == DecoderType::Json;
        let key = record.key.filter(|_| reads_key).unwrap_or_default();
        let value = record.value.filter(|_| reads_value).unwrap_or_default();
        document.numbers.read(&[key, value]);
    }

    /// Reads a key or a value in the format of its decoder.
    fn parse(decoder: DecoderType, bytes: Option<&[u8]>, document: &Document<'_>) -> Result<Value, String> {
        match (bytes, decoder) {
            (None, _) => Ok(Value::Null),
            (Some(bytes), DecoderType::Json) => {
                serde_json::from_slice(&document.numbers.parsable(bytes)).map_err(not_json)
            }
            (Some(bytes), DecoderType::String | DecoderType::Bytes) => Ok(Value::from(bytes)),
        }
    }

    fn fill(
        &self,
        record: &OutputRecord<'_>,
        metadata: &mut Metadata,
        document: &mut Document<'_>,
    ) -> Result<Value, Stop> {
        document.start_record();
        self.read_numbers(record, document);
        document.target.value = Self::parse(self.value, record.value, document).map_err(|message| {
            if self.first {
                Stop::Failed(Stage::Decode, self.value_component.clone(), message)
            } else {
                self.unreadable(format!("the value from the previous transform {message}"))
            }
        })?;
        let key = if self.parts.key {
            Self::parse(self.key, record.key, document).map_err(|message| {
                self.unreadable(format!("the key from the previous transform {message}"))
            })?
        } else {
            Value::Null
        };
        let original = if self.changes.key {
            key.clone()
        } else {
            Value::Null
        };
        metadata.fill(record, key, self.changes.metadata, &mut document.target.metadata);
        Ok(original)
    }

    fn unreadable(&self, message: String) -> Stop {
        let name = self
            .programs
            .first()
            .map_or_else(|| self.value_component.clone(), |first| first.name.clone());
        Stop::Failed(Stage::Transform, name, message)
    }

    /// Names the last program, because it made the value that cannot be encoded.
    fn unencodable(&self, what: &str, message: String) -> Stop {
        let name = self
            .programs
            .last()
            .map_or_else(|| self.value_component.clone(), |last| last.name.clone());
        Stop::Failed(
            Stage::Transform,
            name,
            trim(format!("the {what} cannot be written as JSON: {message}")),
        )
    }
}

impl Transform for VrlChain {
    fn apply(&self, input: &Batch, output: &mut BatchBuilder<'_>) {
        let mut runtime = Runtime::default();
        let mut metadata = Metadata::new(self.parts, input.chunk());
        let mut document = Document::new();
        let (mut key_buffer, mut value_buffer) = (Vec::new(), Vec::new());
        for (from, record) in input.outputs().enumerate() {
            let mut emitted = false;
            let original_key = self.fill(&record, &mut metadata, &mut document);
            let done = original_key.and_then(|original_key| {
                let null_document = record.value.is_some() && document.target.value.is_null();
                self.run(0, &mut runtime, &mut document, &mut |document| {
                    emitted = true;
                    let (target, numbers) = (&document.target, &document.numbers);
                    let value = if document.changed && !(null_document && target.value.is_null()) {
                        json::payload(&target.value, self.value, numbers, &mut value_buffer)
                            .map_err(|message| self.unencodable("value", message))?
                    } else {
                        Payload::Keep
                    };
                    let key = match self.changes.key.then(|| metadata::key(&target.metadata)) {
                        Some(key) if *key != original_key => {
                            json::payload(key, self.key, numbers, &mut key_buffer)
                                .map_err(|message| self.unencodable("key", message))?
                        }
                        _ => Payload::Keep,
                    };
                    output.emit(from, key, value);
                    Ok(())
                })
            });
            match done {
                Err(Stop::Failed(stage, component, message)) => output.fail(from, stage, &component, message),
                Ok(()) if !emitted => output.filter(),
                Ok(()) => {}
            }
        }
    }

    fn decodes_values(&self) -> bool {
        self.first && self.value == DecoderType::Json
    }

    fn reads_headers(&self) -> bool {
        self.parts.headers
    }
}

/// The message of a VRL runtime error without the values that it quotes. Messages go into logs, status and
/// headers, which never show payloads. Example: `function call error for "to_float" at (0:9): Invalid
/// floating point number "…"`
fn without_values(message: &str) -> String {
    let place_len = message.find("): ").map_or(0, |at| at + 3);
    let (place, cause) = message.split_at(place_len);
    // From the first quote to the last, because a value may contain quotes.
    match (cause.find('"'), cause.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{place}{}…{}", &cause[..=first], &cause[last..])
        }
        (Some(first), _) => format!("{place}{}…", &cause[..=first]),
        _ => message.to_owned(),
    }
}

fn trim(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    message
}

#[cfg(test)]
mod tests;

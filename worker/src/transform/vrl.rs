//! Transforms written in the Vector Remap Language. Programs are compiled once and run for every record; consecutive
//! VRL transforms form one [`VrlChain`] and pass `.` and `%` on as they are, so a record is parsed and written once however
//! many there are. Programs reach nothing but their record: no network, files, environment (`crds::vrl_program`).
//!
//! **`.`** is the value as `spec.decode.value` says: the parsed document for Json, a string for String and Bytes, null for a
//! tombstone. Bytes from a custom transform further up are read the same way; what does not parse there fails the record.
//! **`%`** is an object with `topic`, `partition`, `offset`, `timestamp` (null when there is none), `key` (as
//! `spec.decode.key` says) and `headers` (the last value of each name). Assigning `%key` changes the key; other changes of
//! `%` are seen by the following programs of the chain and then dropped.
//!
//! What a program leaves in `.` becomes the value: null a tombstone; a string, when values are String or Bytes, its own
//! bytes; anything else compact JSON. `abort` filters the record out. A program that assigns `.` and leaves an array there makes
//! one output of each element, none of an empty one. A runtime error fails the record. Chains that neither assign below `.`
//! nor call `del` keep the value byte for byte; in the others JSON is written anew: keys sorted, the last of repeated keys
//! kept, integers exact within 64 bits signed, every other number as a 64-bit float. Time functions use UTC.

mod json;
mod metadata;

use std::sync::Arc;

use ::vrl::{
    compiler::{
        ExpressionError, Program, TargetValue, TimeZone,
        runtime::{Runtime, Terminate},
    },
    path::PathPrefix,
    value::{Secrets, Value},
};
use crds::{
    spec::{Decode, DecoderType},
    vrl_program::{self, InvalidProgram},
};

use self::metadata::{Metadata, Parts};
use super::Transform;
use crate::{
    decode::not_json,
    record::{
        batch::{Batch, BatchBuilder, OutputRecord, Payload},
        failure::Stage,
    },
};

/// Longest error message kept; dead letter headers and status show it.
const MAX_MESSAGE: usize = 1024;

/// One or several VRL transforms that follow each other.
pub struct VrlChain {
    programs: Vec<NamedProgram>,
    key: DecoderType,
    value: DecoderType,
    first: bool,
    parts: Parts,
    changes: Changes,
    timezone: TimeZone,
    value_component: Arc<str>,
}

struct NamedProgram {
    name: Arc<str>,
    program: Program,
    /// It assigns `.` itself, so an array there means several outputs.
    splits: bool,
}

/// What the programs may change; the rest is kept without looking at it.
#[derive(Clone, Copy, Default)]
struct Changes {
    value: bool,
    metadata: bool,
    key: bool,
}

/// Why a record has no more outputs.
enum Stop {
    Failed(Stage, Arc<str>, String),
}

impl VrlChain {
    /// Compiles `programs`, pairs of name and source. `first`: no transform comes before, so that values have not been
    /// decoded yet. An error names the program.
    pub fn compile(
        programs: &[(&str, &str)],
        decode: &Decode,
        first: bool,
    ) -> Result<Self, (String, InvalidProgram)> {
        let mut chain = Self {
            programs: Vec::with_capacity(programs.len()),
            key: decode.key.kind,
            value: decode.value.kind,
            first,
            parts: Parts::default(),
            changes: Changes::default(),
            timezone: TimeZone::parse("UTC").unwrap_or_default(),
            value_component: "value".into(),
        };
        for (name, source) in programs {
            let compiled = vrl_program::compile(source).map_err(|error| ((*name).to_string(), error))?;
            if let Some(warnings) = compiled.warnings {
                tracing::warn!(
                    transform = name,
                    "the compiler warns about transform {name}:\n{warnings}"
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
        // The only function that changes its argument.
        let deletes = source.contains("del");
        self.parts
            .add(info.target_queries.iter().chain(&info.target_assignments));
        self.changes.value |= deletes || assigns(PathPrefix::Event).next().is_some();
        self.changes.metadata |= deletes || assigns(PathPrefix::Metadata).next().is_some();
        self.changes.key = self.changes.metadata && self.parts.key;
        let splits = assigns(PathPrefix::Event).any(|path| path.path.is_root());
        self.programs.push(NamedProgram {
            name: name.into(),
            program,
            splits,
        });
    }

    /// The names of the programs, joined by "+": what metrics call the chain.
    pub fn name(&self) -> String {
        self.programs
            .iter()
            .map(|program| &*program.name)
            .collect::<Vec<_>>()
            .join("+")
    }

    /// TimedPipeline the programs from the one at `at` on and calls `emit` for every output.
    fn run(
        &self,
        at: usize,
        runtime: &mut Runtime,
        target: &mut TargetValue,
        emit: &mut dyn FnMut(&TargetValue) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        for (at, step) in self.programs.iter().enumerate().skip(at) {
            runtime.clear();
            match runtime.resolve(target, &step.program, &self.timezone) {
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
            if step.splits && matches!(target.value, Value::Array(_)) {
                let Value::Array(elements) = std::mem::replace(&mut target.value, Value::Null) else {
                    return Ok(());
                };
                let metadata = target.metadata.clone();
                for element in elements {
                    target.value = element;
                    if self.changes.metadata {
                        target.metadata = metadata.clone();
                    }
                    self.run(at + 1, runtime, target, emit)?;
                }
                return Ok(());
            }
        }
        emit(target)
    }

    /// Reads a key or value as its decoder says.
    fn parse(&self, decoder: DecoderType, bytes: Option<&[u8]>) -> Result<Value, String> {
        match (bytes, decoder) {
            (None, _) => Ok(Value::Null),
            (Some(bytes), DecoderType::Json) => serde_json::from_slice(bytes).map_err(not_json),
            (Some(bytes), DecoderType::String | DecoderType::Bytes) => Ok(Value::from(bytes)),
        }
    }

    fn fill(
        &self,
        record: &OutputRecord<'_>,
        metadata: &mut Metadata,
        target: &mut TargetValue,
    ) -> Result<Value, Stop> {
        target.value = self
            .parse(self.value, record.value)
            .map_err(|message| match self.first {
                true => Stop::Failed(Stage::Decode, self.value_component.clone(), message),
                false => self.unreadable(format!("the value from the transform before {message}")),
            })?;
        let key = match self.parts.key {
            true => self
                .parse(self.key, record.key)
                .map_err(|message| self.unreadable(format!("the key from the transform before {message}")))?,
            false => Value::Null,
        };
        let original = if self.changes.key {
            key.clone()
        } else {
            Value::Null
        };
        metadata.fill(record, key, self.changes.metadata, &mut target.metadata);
        Ok(original)
    }

    fn unreadable(&self, message: String) -> Stop {
        let name = self
            .programs
            .first()
            .map_or_else(|| self.value_component.clone(), |first| first.name.clone());
        Stop::Failed(Stage::Transform, name, message)
    }

    /// The last program's name: what cannot be encoded is its work.
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
        let empty = Value::Object(Default::default());
        let mut target = TargetValue {
            value: Value::Null,
            metadata: empty,
            secrets: Secrets::new(),
        };
        let (mut key_buffer, mut value_buffer) = (Vec::new(), Vec::new());
        for (from, record) in input.outputs().enumerate() {
            let mut emitted = false;
            let original_key = self.fill(&record, &mut metadata, &mut target);
            let done = original_key.and_then(|original_key| {
                let null_document = record.value.is_some() && target.value.is_null();
                self.run(0, &mut runtime, &mut target, &mut |target| {
                    emitted = true;
                    let value = match self.changes.value && !(null_document && target.value.is_null()) {
                        true => json::payload(&target.value, self.value, &mut value_buffer)
                            .map_err(|message| self.unencodable("value", message))?,
                        false => Payload::Keep,
                    };
                    let key = match self.changes.key.then(|| metadata::key(&target.metadata)) {
                        Some(key) if *key != original_key => json::payload(key, self.key, &mut key_buffer)
                            .map_err(|message| self.unencodable("key", message))?,
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

/// What VRL says of a runtime error, without the values it quotes: messages go into logs, status and headers, and those
/// never show payloads. `function call error for "to_float" at (0:9): Invalid floating point number "…"`
fn without_values(message: &str) -> String {
    let told = message.find("): ").map_or(0, |at| at + 3);
    let (place, cause) = message.split_at(told);
    // From the first quote to the last: a value may have quotes of its own.
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

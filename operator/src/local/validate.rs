//! The checks of the API server, without an API server. In: a document and, for a change, the previous one.
//! Out: the typed resource with defaults, or every error, worded like the API server's and with what to write
//! instead. Pure. All rules come from the CRD; none are defined here.
//!
//! ```text
//! unknown fields -> nulls and defaults -> types, bounds, patterns, lists -> CEL rules -> KafkaConsumerGroup
//! ```

mod defaults;
mod field_error;
mod hint;
mod metadata;
mod structure;
mod unknown;

use crds::{KafkaConsumerGroup, spec::FILE_NEEDS_VOLUME_MESSAGE};
use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use serde_json::Value;

pub use field_error::FieldError;

/// The compiled schema of the CRD.
pub struct Rules {
    schema: Value,
    cel: CompiledSchema,
    /// Messages of rules that do not apply.
    ignored: &'static [&'static str],
}

impl Default for Rules {
    fn default() -> Self {
        Self::new()
    }
}

impl Rules {
    pub fn new() -> Self {
        let schema = crds::crd::schema();
        let cel = compile_schema(&schema);
        Self {
            schema,
            cel,
            ignored: &[],
        }
    }

    /// Without the rules that are about containers: to run groups on this machine.
    pub fn without_containers() -> Self {
        Self {
            ignored: &[FILE_NEEDS_VOLUME_MESSAGE],
            ..Self::new()
        }
    }

    /// Checks `object`, as a change of `old` if given.
    pub fn check(&self, object: &Value, old: Option<&Value>) -> Result<KafkaConsumerGroup, Vec<FieldError>> {
        // As in the API server, a stage with errors ends the check: later stages would only repeat them.
        let mut errors = metadata::check(object);
        unknown::check(&self.schema, object, &mut errors);
        stop(errors)?;
        let object = defaults::fill(&self.schema, object);
        let mut errors = Vec::new();
        structure::check(&self.schema, &object, &mut errors);
        stop(errors)?;
        let old = old.map(|old| defaults::fill(&self.schema, old));
        if let Err(errors) = Validator::new().validate_compiled(&self.cel, &object, old.as_ref()) {
            let errors = errors.into_vec().into_iter();
            let apply = errors.filter(|error| !self.ignored.contains(&error.message.as_str()));
            stop(
                apply
                    .map(|error| FieldError {
                        path: error.field_path,
                        message: format!("Invalid value: {}", error.message),
                    })
                    .collect(),
            )?;
        }
        serde_json::from_value(object).map_err(|error| {
            vec![FieldError {
                path: String::new(),
                message: error.to_string(),
            }]
        })
    }
}

fn stop(errors: Vec<FieldError>) -> Result<(), Vec<FieldError>> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

#[cfg(test)]
mod tests;

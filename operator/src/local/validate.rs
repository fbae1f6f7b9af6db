//! The API server's checks, without an API server. In: a document and, on a change, the one before. Out: the typed
//! resource with defaults filled in, or every reason against it, worded like the API server's and with what to write
//! instead. Pure. The rules are those of the CRD; none are written here.
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

use crds::KafkaConsumerGroup;
use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use serde_json::Value;

pub use field_error::FieldError;

/// The CRD's schema, ready to check documents with.
pub struct Rules {
    schema: Value,
    cel: CompiledSchema,
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
        Self { schema, cel }
    }

    /// Checks `object`, as a change of `old` if there is one.
    pub fn check(&self, object: &Value, old: Option<&Value>) -> Result<KafkaConsumerGroup, Vec<FieldError>> {
        // Like the API server, each stage ends the check if it finds something: what comes later would only repeat it.
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
            return Err(errors
                .map(|error| FieldError {
                    path: error.field_path,
                    message: format!("Invalid value: {}", error.message),
                })
                .collect());
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

//! Transforms: what turns one record into none, one or several. The [`Transform`] trait works on whole batches; most
//! users write a closure for one record and wrap it with [`per_record`].

pub mod fields;
#[cfg(feature = "vrl")]
pub mod vrl;

use std::sync::Arc;

use crate::record::{
    batch::{Batch, BatchBuilder, OutputRecord, Payload},
    failure::Stage,
};

/// A transform, called from several threads at once. It may panic: the engine then finds the record that made it.
pub trait Transform: Send + Sync {
    /// Reads `input` from first to last and emits, fails or filters every output of it.
    fn apply(&self, input: &Batch, output: &mut BatchBuilder<'_>);

    /// True when the transform decodes values itself, reporting what does not decode at [`Stage::Decode`]; as the first
    /// transform it then saves the decoder's pass.
    fn decodes_values(&self) -> bool {
        false
    }

    /// False when the transform never looks at headers. When nobody does, they are not read.
    fn reads_headers(&self) -> bool {
        true
    }
}

/// What [`per_record`] closures emit into.
#[derive(Debug)]
pub struct Emitter<'a, 'i> {
    builder: &'a mut BatchBuilder<'i>,
    from: usize,
    emitted: bool,
}

impl Emitter<'_, '_> {
    /// Emits an output with the same key.
    pub fn value(&mut self, value: &[u8]) {
        self.emit(Payload::Keep, Payload::New(value));
    }

    /// Emits the record as it is.
    pub fn keep(&mut self) {
        self.emit(Payload::Keep, Payload::Keep);
    }

    /// Emits an output.
    pub fn emit(&mut self, key: Payload<'_>, value: Payload<'_>) {
        self.emitted = true;
        self.builder.emit(self.from, key, value);
    }
}

/// Makes a [`Transform`] of a closure that handles one record: it emits any number of outputs, none to filter the record
/// out, or returns what is wrong with it.
pub fn per_record<F>(name: &str, transform: F) -> Arc<dyn Transform>
where
    F: Fn(&OutputRecord<'_>, &mut Emitter<'_, '_>) -> Result<(), String> + Send + Sync + 'static,
{
    Arc::new(PerRecord {
        name: name.into(),
        transform,
    })
}

struct PerRecord<F> {
    name: Arc<str>,
    transform: F,
}

impl<F> Transform for PerRecord<F>
where
    F: Fn(&OutputRecord<'_>, &mut Emitter<'_, '_>) -> Result<(), String> + Send + Sync,
{
    fn apply(&self, input: &Batch, output: &mut BatchBuilder<'_>) {
        for (from, record) in input.outputs().enumerate() {
            let mut emitter = Emitter {
                builder: output,
                from,
                emitted: false,
            };
            match (self.transform)(&record, &mut emitter) {
                Ok(()) if !emitter.emitted => output.filter(),
                Ok(()) => {}
                Err(message) => output.fail(from, Stage::Transform, &self.name, message),
            }
        }
    }
}

/// A transform with its name in metrics and dead letters.
#[derive(Clone)]
pub struct NamedTransform {
    /// Its name in the resource; names joined by "+" for VRL transforms that run together.
    pub name: Arc<str>,
    /// Ready to be called.
    pub transform: Arc<dyn Transform>,
}

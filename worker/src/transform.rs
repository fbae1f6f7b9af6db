//! Transforms: each makes none, one or several outputs of a record. The [`Transform`] trait works on whole
//! batches; most custom transforms are a closure for one record, wrapped with [`per_record`].

pub mod fields;
#[cfg(feature = "vrl")]
pub mod vrl;

use std::sync::Arc;

use crate::record::{
    batch::{
        Batch, OutputRecord,
        builder::{BatchBuilder, Payload},
    },
    failure::Stage,
};

/// A transform of whole batches. Use [`per_record`] if the transform handles each record by itself.
///
/// The worker calls it from several threads at once, on threads where it may use the CPU and block. It may be
/// called again for the same records, after a failed write or a restart, so it must not depend on being
/// called exactly once.
///
/// If it panics, the worker finds the record that caused the panic and handles that record as failed; the
/// other records are processed. If it takes longer than `transformTimeoutSeconds` for one record, that record
/// fails, too. A running transform cannot be interrupted, so the worker abandons its thread. It restarts when
/// more than 8 abandoned threads belong to finished records.
///
/// ```
/// use std::sync::Arc;
///
/// use kafka_consumer_worker::{Batch, BatchBuilder, Chunk, Payload, Transform, record::TopicPartition};
///
/// /// Removes tombstones and swaps key and value of all other records.
/// struct Swap;
///
/// impl Transform for Swap {
///     fn apply(&self, input: &Batch, output: &mut BatchBuilder<'_>) {
///         for (from, record) in input.outputs().enumerate() {
///             let payload = |bytes| match bytes {
///                 Some(bytes) => Payload::New(bytes),
///                 None => Payload::Null,
///             };
///             if record.value.is_none() {
///                 output.filter();
///             } else {
///                 output.emit(from, payload(record.value), payload(record.key));
///             }
///         }
///     }
///
///     fn reads_headers(&self) -> bool {
///         false
///     }
/// }
///
/// let mut chunk = Chunk::new(TopicPartition::new("orders", 0), 1);
/// chunk.push(0, -1, Some(b"k"), Some(b"v"), []);
/// chunk.push(1, -1, Some(b"k"), None, []);
/// let input = Batch::identity(Arc::new(chunk));
/// let mut output = input.next();
/// Swap.apply(&input, &mut output);
/// let (batch, filtered) = output.finish();
/// assert_eq!((batch.len(), filtered), (1, 1));
/// assert_eq!(batch.output(0).value, Some(b"k".as_slice()));
/// ```
pub trait Transform: Send + Sync {
    /// Handles every record of `input`, from first to last: emits outputs, marks the record as failed, or
    /// filters it out. `input` has one entry for each output of the previous transform, or for each record
    /// that was read if this is the first transform.
    fn apply(&self, input: &Batch, output: &mut BatchBuilder<'_>);

    /// True if the transform decodes the values and reports values that do not decode with [`Stage::Decode`].
    /// If it is the first transform, the worker then skips its own check of the values.
    fn decodes_values(&self) -> bool {
        false
    }

    /// False if the transform never reads headers. If no transform, no writer and no dead letter topic needs
    /// headers, the worker does not read them, which saves time.
    fn reads_headers(&self) -> bool {
        true
    }
}

/// Takes the outputs of a [`per_record`] closure. Without any output, the record is filtered out.
#[derive(Debug)]
pub struct Emitter<'a, 'i> {
    builder: &'a mut BatchBuilder<'i>,
    from: usize,
    emitted: bool,
}

impl Emitter<'_, '_> {
    /// Emits an output with the same key and a new value, which is copied.
    pub fn value(&mut self, value: &[u8]) {
        self.emit(Payload::Keep, Payload::New(value));
    }

    /// Emits an output with the same key and value.
    pub fn keep(&mut self) {
        self.emit(Payload::Keep, Payload::Keep);
    }

    /// Emits an output with this key and this value; [`Payload::Null`] as the value makes a tombstone.
    pub fn emit(&mut self, key: Payload<'_>, value: Payload<'_>) {
        self.emitted = true;
        self.builder.emit(self.from, key, value);
    }
}

/// Makes a [`Transform`] from a closure that handles one record. The closure emits any number of outputs and
/// returns `Ok`; without an output the record is filtered out. Or it returns an error, which removes the
/// outputs already emitted and fails the record at the stage `transform`; `onExhausted` of the resource
/// decides what happens to it.
///
/// `name` is the component of these failures in dead letter headers, metrics and status. The error message is
/// shown there and in logs, so it must not contain the payload. [`Transform`] documents threads, panics and
/// time limits.
///
/// ```
/// use kafka_consumer_worker::per_record;
///
/// let uppercase = per_record("uppercase", |record, output| {
///     let Some(value) = record.value else {
///         output.keep(); // a tombstone
///         return Ok(());
///     };
///     let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
///     output.value(text.to_uppercase().as_bytes());
///     Ok(())
/// });
/// assert!(uppercase.reads_headers());
/// ```
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

/// A transform and its name in metrics and dead letters.
#[derive(Clone)]
pub struct NamedTransform {
    /// Name in the resource; for VRL transforms that run together, their names joined by "+".
    pub name: Arc<str>,
    /// The built transform.
    pub transform: Arc<dyn Transform>,
}

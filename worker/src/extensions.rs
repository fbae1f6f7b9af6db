//! The transforms and writers of a custom worker binary, by the names that `custom.name` in a resource refers
//! to.

use std::{collections::HashMap, fmt, sync::Arc};

use serde_json::Value;

use crate::{transform::Transform, writer::Writer};

type TransformFactory = Box<dyn Fn(&Value) -> anyhow::Result<Arc<dyn Transform>> + Send + Sync>;
type WriterFactory = Box<dyn Fn(&Value) -> anyhow::Result<Arc<dyn Writer>> + Send + Sync>;

/// The custom transforms and writers of a worker binary. Each one has a name and a function that builds it
/// from `custom.config` of the resource; pass all of them to [`run`](crate::run).
///
/// A resource refers to a transform as `{"name": "loud", "type": "Custom", "custom": {"name": "uppercase",
/// "config": {"field": "status"}}}`, and to a writer in the same way. The worker builds each one once, when
/// it starts. If a function returns an error, or if the resource uses a name that is not registered, the
/// worker logs the error and exits with code 2 ([`exit::CONFIG`](crate::exit::CONFIG)).
///
/// ```no_run
/// use std::{process::ExitCode, sync::Arc};
///
/// use kafka_consumer_worker::{
///     BoxFuture, Extensions, Rejected, WriteBatch, WriteError, Writer, per_record, run,
/// };
///
/// struct Count;
///
/// impl Writer for Count {
///     fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
///         eprintln!("{} records of {}", batch.len(), batch.partition());
///         Box::pin(async { Ok(Vec::new()) })
///     }
/// }
///
/// fn main() -> ExitCode {
///     let extensions = Extensions::new()
///         .transform("prefix", |config| {
///             let prefix = config["prefix"].as_str().unwrap_or("> ").to_owned();
///             Ok(per_record("prefix", move |record, output| {
///                 let value = record.value.ok_or("the record is a tombstone")?;
///                 output.value(&[prefix.as_bytes(), value].concat());
///                 Ok(())
///             }))
///         })
///         .writer("count", |_config| Ok(Arc::new(Count)));
///     run(extensions)
/// }
/// ```
#[derive(Default)]
pub struct Extensions {
    transforms: HashMap<String, TransformFactory>,
    writers: HashMap<String, WriterFactory>,
}

impl Extensions {
    /// No custom transforms and no custom writers: the released worker.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a transform. `name` is what `custom.name` refers to; a second transform of the same name replaces
    /// the first. `build` gets `custom.config`, which is null if the resource has none. It may return an
    /// error; the worker then does not start. Its message must not contain secrets, because the worker logs
    /// it.
    pub fn transform<F>(mut self, name: &str, build: F) -> Self
    where
        F: Fn(&Value) -> anyhow::Result<Arc<dyn Transform>> + Send + Sync + 'static,
    {
        self.transforms.insert(name.into(), Box::new(build));
        self
    }

    /// Adds a writer. `name` is what `custom.name` refers to; a second writer of the same name replaces the
    /// first. `build` gets `custom.config`, which is null if the resource has none. It may return an error;
    /// the worker then does not start. Its message must not contain secrets, because the worker logs it.
    /// Connect in [`Writer::write`] instead of here: a system that is unavailable is
    /// then retried.
    pub fn writer<F>(mut self, name: &str, build: F) -> Self
    where
        F: Fn(&Value) -> anyhow::Result<Arc<dyn Writer>> + Send + Sync + 'static,
    {
        self.writers.insert(name.into(), Box::new(build));
        self
    }

    pub(crate) fn build_transform(&self, name: &str, config: &Value) -> anyhow::Result<Arc<dyn Transform>> {
        match self.transforms.get(name) {
            Some(build) => build(config),
            None => Err(unknown("transform", name, self.transforms.keys())),
        }
    }

    pub(crate) fn build_writer(&self, name: &str, config: &Value) -> anyhow::Result<Arc<dyn Writer>> {
        match self.writers.get(name) {
            Some(build) => build(config),
            None => Err(unknown("writer", name, self.writers.keys())),
        }
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String>) -> anyhow::Error {
    let mut known: Vec<&str> = known.map(String::as_str).collect();
    known.sort_unstable();
    if known.is_empty() {
        return anyhow::anyhow!(
            "this worker has no custom {what} {name:?} and no other custom {what}; set worker.image to an image that has it"
        );
    }
    anyhow::anyhow!(
        "this worker has no custom {what} {name:?}; it has: {}; correct custom.name, or set worker.image to an image that has it",
        known.join(", ")
    )
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions")
            .field("transforms", &self.transforms.keys())
            .field("writers", &self.writers.keys())
            .finish()
    }
}

//! The transforms and writers that a user's own worker binary brings along, by the names that
//! `custom.name` in a resource refers to.

use std::{collections::HashMap, fmt, sync::Arc};

use serde_json::Value;

use crate::{transform::Transform, writer::Writer};

type TransformFactory = Box<dyn Fn(&Value) -> anyhow::Result<Arc<dyn Transform>> + Send + Sync>;
type WriterFactory = Box<dyn Fn(&Value) -> anyhow::Result<Arc<dyn Writer>> + Send + Sync>;

/// Names of custom transforms and writers, with what builds them from their `custom.config`.
#[derive(Default)]
pub struct Extensions {
    transforms: HashMap<String, TransformFactory>,
    writers: HashMap<String, WriterFactory>,
}

impl Extensions {
    /// A registry without any.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a transform; `build` gets `custom.config`, null when absent.
    pub fn transform<F>(mut self, name: &str, build: F) -> Self
    where
        F: Fn(&Value) -> anyhow::Result<Arc<dyn Transform>> + Send + Sync + 'static,
    {
        self.transforms.insert(name.into(), Box::new(build));
        self
    }

    /// Registers a writer; `build` gets `custom.config`, null when absent.
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
            "this worker has no custom {what} {name:?}, nor any other: set worker.image to an image built with your own {what}s"
        );
    }
    anyhow::anyhow!(
        "this worker has no custom {what} {name:?}; it has: {}",
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

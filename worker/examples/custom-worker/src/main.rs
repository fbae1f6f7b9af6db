//! A worker with a custom transform and a custom writer; everything else is the released worker. README.md
//! shows the resource that uses them and how to build an image.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use kafka_consumer_worker::{
    BoxFuture, Extensions, Rejected, Transform, WriteBatch, WriteError, Writer, per_record,
};
use serde_json::Value;

/// Converts one field of every JSON record to upper case.
fn uppercase(config: &Value) -> anyhow::Result<Arc<dyn Transform>> {
    let field = config["field"]
        .as_str()
        .context("config.field must be the name of a field")?
        .to_owned();
    Ok(per_record("uppercase", move |record, output| {
        let Some(value) = record.value else {
            output.keep();
            return Ok(());
        };
        let mut document: Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let text = document[&field]
            .as_str()
            .ok_or_else(|| format!("field {field} is not a string"))?;
        document[&field] = text.to_uppercase().into();
        output.value(document.to_string().as_bytes());
        Ok(())
    }))
}

/// Counts the records that it receives and prints the total to stderr.
#[derive(Default)]
struct Count(AtomicU64);

impl Writer for Count {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        let total = self.0.fetch_add(batch.len() as u64, Ordering::Relaxed) + batch.len() as u64;
        eprintln!("custom-worker: counted {total} records");
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn main() -> ExitCode {
    let extensions = Extensions::new()
        .transform("uppercase", uppercase)
        .writer("count", |_| Ok(Arc::new(Count::default())));
    kafka_consumer_worker::run(extensions)
}

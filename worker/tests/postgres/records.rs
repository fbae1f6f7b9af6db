//! Records for the Postgres writer.

use std::sync::Arc;

use kafka_consumer_worker::{
    Batch, Chunk, Rejected, WriteBatch, WriteError, Writer, record::TopicPartition,
    writer::postgres::PostgresWriter,
};
use serde_json::json;

pub fn by_id() -> serde_json::Value {
    json!({"keyColumns": ["id"]})
}

pub fn batch(values: &[&str]) -> Batch {
    let mut chunk = Chunk::new(TopicPartition::new("orders", 1), 1);
    for (offset, value) in values.iter().enumerate() {
        chunk.push(offset as i64, 0, None, Some(value.as_bytes()), []);
    }
    Batch::identity(Arc::new(chunk))
}

pub async fn write(writer: &PostgresWriter, values: &[&str]) -> Result<Vec<Rejected>, WriteError> {
    let batch = batch(values);
    let all: Vec<u32> = (0..values.len() as u32).collect();
    writer.write(WriteBatch::new(&batch, &all)).await
}

/// The message with which the writer refuses a single record.
#[allow(dead_code)] // Not every test crate uses it.
pub async fn refusal(writer: &PostgresWriter, value: &str) -> String {
    match write(writer, &[value]).await {
        Err(WriteError::Refused(message)) => message,
        other => panic!("{other:?}"),
    }
}

//! The yardstick for the worker: librdkafka with the worker's own client properties, all partitions
//! forwarded to one queue, read in batches, keys and values copied into one block of memory, and nothing
//! else. No worker on librdkafka can be faster, so the ratio is the cost of the worker itself.
//!
//! Prints `first` at the first record and `last` at the last, then waits for the end of stdin: the program
//! that started it reads its CPU time and memory at these moments. Waits at most [`SILENCE`] for a record.
//!
//! The third and last module that calls librdkafka's C interface. It is sound because [`Queue`] borrows its
//! consumer, so the queue ends first; because every message of a batch is destroyed once, right after its
//! copy; and because nothing borrowed is kept.
#![allow(unsafe_code)]

use std::{
    ffi::{CString, c_void},
    hint::black_box,
    io::{self, Read as _, Write as _},
    ptr, slice,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use crds::{
    client_config::{self, KafkaCredentials},
    spec,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList, bindings as sys,
    consumer::{BaseConsumer, Consumer},
    types::RDKafkaErrorCode,
};

/// Messages per call; measured: larger is not faster.
const BATCH: usize = 4096;
/// Longest wait in one call; limits how late the loop sees an error of the client.
const TICK: Duration = Duration::from_millis(100);
/// A local broker that has sent no record for this long will not send one.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// If the topic had another record after the last one, it would arrive within this time.
const AFTER_LAST: Duration = Duration::from_secs(1);

/// Reads `records` records of `topic` from its beginning; with `exactly`, another record is an error.
pub(super) fn run(bootstrap: &str, topic: &str, records: u64, exactly: bool) -> Result<()> {
    let kafka = serde_json::from_value(serde_json::json!({"bootstrapServers": [bootstrap]}))?;
    let properties = client_config::consumer(
        &kafka,
        &KafkaCredentials::default(),
        "bench-raw",
        &spec::Consumer::default(),
    );
    let consumer: BaseConsumer = ClientConfig::from_iter(properties)
        .create()
        .context("cannot create the consumer")?;
    let metadata = consumer.fetch_metadata(Some(topic), SILENCE)?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    ensure!(partitions > 0, "topic {topic} does not exist");

    let mut queue = Queue::new(&consumer);
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        queue.forward(topic, partition)?;
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;

    let mut arena = Vec::new();
    let mut count = 0;
    let mut last_read = Instant::now();
    while count < records {
        if let Some(event) = consumer.poll(Duration::ZERO) {
            event.context("the client failed")?;
            bail!("a record came outside of its queue");
        }
        arena.clear();
        let read = queue.drain(&mut arena)?;
        black_box(&arena);
        if read > 0 {
            last_read = Instant::now();
            if count == 0 {
                print_mark("first")?;
            }
        }
        ensure!(
            last_read.elapsed() < SILENCE,
            "{count} of {records} records, then none for {SILENCE:?}"
        );
        count += read;
    }
    if exactly {
        let end = Instant::now() + AFTER_LAST;
        while Instant::now() < end {
            count += queue.drain(&mut arena)?;
        }
        ensure!(count == records, "{count} records instead of {records}");
    }
    print_mark("last")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Prints a line for the program that started this one.
pub(super) fn print_mark(word: &str) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

/// The queue that all partitions are forwarded to.
struct Queue<'a> {
    raw: *mut sys::rd_kafka_queue_t,
    consumer: &'a BaseConsumer,
    messages: Vec<*mut sys::rd_kafka_message_t>,
}

impl<'a> Queue<'a> {
    fn new(consumer: &'a BaseConsumer) -> Self {
        // SAFETY: the client is valid; rd_kafka_queue_new never fails.
        let raw = unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Self {
            raw,
            consumer,
            messages: vec![ptr::null_mut(); BATCH],
        }
    }

    /// Forwards the partition's records to this queue, from the next assignment on.
    fn forward(&self, topic: &str, partition: i32) -> Result<()> {
        let topic = CString::new(topic)?;
        // SAFETY: client, topic and both queues are valid; the reference to the partition's queue is
        // released.
        unsafe {
            let client = self.consumer.client().native_ptr();
            let queue = sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition);
            ensure!(!queue.is_null(), "partition {partition} has no queue");
            sys::rd_kafka_queue_forward(queue, self.raw);
            sys::rd_kafka_queue_destroy(queue);
        }
        Ok(())
    }

    /// Appends keys and values of the next batch to `arena`; returns the number of records.
    fn drain(&mut self, arena: &mut Vec<u8>) -> Result<u64> {
        let millis = i32::try_from(TICK.as_millis())?;
        // SAFETY: `messages` has room for BATCH pointers; no other thread reads this queue.
        let count =
            unsafe { sys::rd_kafka_consume_batch_queue(self.raw, millis, self.messages.as_mut_ptr(), BATCH) };
        let mut read = 0;
        let mut failed = None;
        for &message in self.messages.iter().take(usize::try_from(count).unwrap_or(0)) {
            // SAFETY: a valid message, used only before this iteration destroys it.
            unsafe {
                let fields = &*message;
                if fields.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    append(arena, fields.key, fields.key_len);
                    append(arena, fields.payload, fields.len);
                    read += 1;
                } else {
                    failed = Some(RDKafkaErrorCode::from(fields.err));
                }
                sys::rd_kafka_message_destroy(message);
            }
        }
        match failed {
            None => Ok(read),
            Some(code) => bail!("reading: {code}"),
        }
    }
}

/// # Safety
/// `start` is null or points to `len` bytes.
unsafe fn append(arena: &mut Vec<u8>, start: *mut c_void, len: usize) {
    if !start.is_null() {
        // SAFETY: the caller guarantees it.
        arena.extend_from_slice(unsafe { slice::from_raw_parts(start.cast(), len) });
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once, before the client that it borrows.
        unsafe { sys::rd_kafka_queue_destroy(self.raw) }
    }
}

//! Safe wrappers for librdkafka calls that rdkafka's API lacks: batch reads, forwarding of partition queues,
//! commits with a result per partition, cached watermarks, the log in the order of reads. The worker's only
//! unsafe code.
//!
//! Invariants that make it sound:
//!
//! * [`ConsumerClient`] owns the consumer and its queues. Field order drops the queues before the
//!   consumer. A `ConsumerClient` stays on one thread: it is created inside the poll thread, and its raw
//!   pointers make it `!Send`.
//! * Every message pointer from `rd_kafka_consume_batch_queue` is destroyed exactly once, after the closure
//!   that borrows it has returned, even if that closure panics.
//! * Borrowed keys, values and headers do not outlive the closure call that receives them.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_void},
    ptr, slice,
    time::Duration,
};

use rdkafka::{
    ClientContext, bindings as sys,
    client::Client,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::RDKafkaErrorCode,
    topic_partition_list::TopicPartitionList,
};

use super::{callbacks::ConsumerCallbacks, log};
use crate::record::Offset;

/// Maximum number of messages per call. Measured: runs of one partition are about this long, and a larger
/// number brings nothing.
const BATCH: usize = 2048;

/// A message borrowed from librdkafka.
pub(crate) struct Message<'a> {
    raw: &'a sys::rd_kafka_message_t,
}

impl<'a> Message<'a> {
    /// Identity of the topic object: equal for messages of the same topic, and cheaper to compare than names.
    pub fn topic_id(&self) -> usize {
        self.raw.rkt as usize
    }

    pub fn topic(&self) -> &'a str {
        // SAFETY: rkt is valid while the message is; its name is a C string that lives as long.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.raw.rkt)) };
        // Topic names are ASCII by Kafka's rules.
        name.to_str().unwrap_or_default()
    }

    pub fn partition(&self) -> i32 {
        self.raw.partition
    }

    pub fn offset(&self) -> Offset {
        self.raw.offset
    }

    /// Milliseconds since 1970; -1 if there is none.
    pub fn timestamp(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: both pointers are valid for the call.
        unsafe { sys::rd_kafka_message_timestamp(self.raw, &mut kind) }
    }

    /// True if the timestamp is the broker's and not the producer's.
    pub fn log_append_time(&self) -> bool {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: both pointers are valid for the call.
        unsafe { sys::rd_kafka_message_timestamp(self.raw, &mut kind) };
        kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME
    }

    pub fn key(&self) -> Option<&'a [u8]> {
        bytes(self.raw.key, self.raw.key_len)
    }

    pub fn value(&self) -> Option<&'a [u8]> {
        bytes(self.raw.payload, self.raw.len)
    }

    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.raw.key_len + self.raw.len
    }

    pub fn headers(&self) -> MessageHeaders<'a> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is valid; on success `headers` is owned by it and lives as long.
        let error = unsafe { sys::rd_kafka_message_headers(self.raw, &mut headers) };
        let headers = if error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            headers
        } else {
            ptr::null_mut()
        };
        MessageHeaders {
            headers,
            next: 0,
            message: self.raw,
        }
    }
}

fn bytes<'a>(start: *mut c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: librdkafka gives a valid pointer with its length, or null for Kafka's null; the caller bounds
    // 'a by the
    // message.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast(), len) })
}

/// Headers of a message, in order.
pub(crate) struct MessageHeaders<'a> {
    headers: *mut sys::rd_kafka_headers_t,
    next: usize,
    #[allow(dead_code)] // Bounds 'a: the headers belong to the message.
    message: &'a sys::rd_kafka_message_t,
}

impl<'a> Iterator for MessageHeaders<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.headers.is_null() {
            return None;
        }
        let (mut name, mut value, mut size): (*const c_char, *const c_void, usize) =
            (ptr::null(), ptr::null(), 0);
        // SAFETY: headers is valid while the message is; the out-pointers are valid for the call.
        let error = unsafe {
            sys::rd_kafka_header_get_all(self.headers, self.next, &mut name, &mut value, &mut size)
        };
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        self.next += 1;
        // SAFETY: on success name is a C string owned by the message.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        Some((name, bytes(value.cast_mut(), size)))
    }
}

/// One result of a read.
pub(crate) enum Read<'a> {
    Record(Message<'a>),
    /// An error with the topic and partition that it concerns, and the offset if that is not negative. Topic
    /// empty and partition -1: it concerns no partition.
    Error(&'a str, i32, Offset, RDKafkaErrorCode),
}

/// The result of a commit.
pub(crate) struct Committed {
    /// Error of the whole request.
    pub error: Option<RDKafkaErrorCode>,
    /// Topic, partition, offset and error of each partition.
    pub partitions: Vec<(String, i32, Offset, Option<RDKafkaErrorCode>)>,
}

struct Queue(*mut sys::rd_kafka_queue_t);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_queue_new or _get_partition and destroyed once, before the client.
        unsafe { sys::rd_kafka_queue_destroy(self.0) }
    }
}

/// A consumer, the queue that its partitions are forwarded to, the queue for commit results, and the queue of
/// its log.
pub(crate) struct ConsumerClient {
    records: Queue,
    commits: Queue,
    logs: Queue,
    messages: Vec<*mut sys::rd_kafka_message_t>,
    consumer: BaseConsumer<ConsumerCallbacks>,
}

impl ConsumerClient {
    pub fn new(consumer: BaseConsumer<ConsumerCallbacks>) -> Self {
        let client = consumer.client().native_ptr();
        // SAFETY: the client is valid; rd_kafka_queue_new never fails.
        let queue = || Queue(unsafe { sys::rd_kafka_queue_new(client) });
        let logs = queue();
        // SAFETY: client and queue are valid; librdkafka keeps a reference to the queue.
        unsafe { sys::rd_kafka_set_log_queue(client, logs.0) };
        Self {
            records: queue(),
            commits: queue(),
            logs,
            messages: vec![ptr::null_mut(); BATCH],
            consumer,
        }
    }

    pub fn consumer(&self) -> &BaseConsumer<ConsumerCallbacks> {
        &self.consumer
    }

    /// Returns the consumer, to close it, and destroys the queues.
    pub fn into_consumer(self) -> BaseConsumer<ConsumerCallbacks> {
        let client = self.consumer.client().native_ptr();
        // SAFETY: the client is valid; the queue is a new reference that Queue drops. rdkafka polls it.
        unsafe {
            let main = Queue(sys::rd_kafka_queue_get_main(client));
            sys::rd_kafka_set_log_queue(client, main.0);
        }
        self.consumer
    }

    /// Forwards the partition's records to [`ConsumerClient::drain`]. Needed after every assignment, because
    /// librdkafka forgets it.
    pub fn forward(&self, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else { return };
        let client = self.consumer.client().native_ptr();
        // SAFETY: client and topic are valid; the returned queue is null or a new reference that Queue drops.
        unsafe {
            let queue = sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition);
            if !queue.is_null() {
                let queue = Queue(queue);
                sys::rd_kafka_queue_forward(queue.0, self.records.0);
            }
        }
    }

    /// Passes what librdkafka has logged to the callbacks.
    pub fn serve_logs(&self) {
        loop {
            // SAFETY: the queue is valid; the event is destroyed below, after its texts have been copied.
            unsafe {
                let event = sys::rd_kafka_queue_poll(self.logs.0, 0);
                if event.is_null() {
                    return;
                }
                let (mut facility, mut message, mut level) = (ptr::null(), ptr::null(), 0);
                if sys::rd_kafka_event_log(event, &mut facility, &mut message, &mut level) == 0 {
                    let facility = CStr::from_ptr(facility).to_string_lossy();
                    let message = CStr::from_ptr(message).to_string_lossy();
                    let level = log::level(level);
                    self.consumer
                        .client()
                        .context()
                        .log(level, facility.trim(), message.trim());
                }
                sys::rd_kafka_event_destroy(event);
            }
        }
    }

    /// Waits up to `timeout` for a record and passes it to `each`, with those that are there by then, in order
    /// and at most `limit`. Returns their number. Before the first record, passes to the callbacks what
    /// librdkafka has logged until it fetched the records.
    pub fn drain(&mut self, timeout: Duration, limit: usize, mut each: impl FnMut(Read<'_>)) -> usize {
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let queue = self.records.0;
        let room = &mut self.messages[..limit.min(BATCH)];
        let take = |room: &mut [*mut sys::rd_kafka_message_t], millis| {
            // SAFETY: the call writes at most as many pointers as `room` has; only this thread reads the queue.
            let count =
                unsafe { sys::rd_kafka_consume_batch_queue(queue, millis, room.as_mut_ptr(), room.len()) };
            usize::try_from(count).unwrap_or(0)
        };
        // The call waits until all of `room` is filled or the time is over. So the wait is for one record only.
        let (first, rest) = room.split_at_mut(room.len().min(1));
        let mut count = take(first, millis);
        if count > 0 {
            count += take(rest, 0);
            self.serve_logs();
        }
        // From here on each pointer has an owner, so a panic in `each` leaks nothing.
        let mut owned = Unread(&self.messages[..count]);
        while let Some(message) = owned.next() {
            // SAFETY: a valid message until `message` is dropped at the end of this turn.
            let raw = unsafe { &*message.0 };
            let borrowed = Message { raw };
            if raw.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                each(Read::Record(borrowed));
                continue;
            }
            let topic = if raw.rkt.is_null() { "" } else { borrowed.topic() };
            each(Read::Error(topic, raw.partition, raw.offset, raw.err.into()));
        }
        count
    }

    /// Starts a commit; [`ConsumerClient::committed`] returns its result.
    pub fn commit(&self, offsets: &TopicPartitionList) -> Result<(), RDKafkaErrorCode> {
        let client = self.consumer.client().native_ptr();
        // SAFETY: client, list and queue are valid; librdkafka copies the list. No callback: events are on
        // for this client.
        let error = unsafe {
            sys::rd_kafka_commit_queue(client, offsets.ptr(), self.commits.0, None, ptr::null_mut())
        };
        match error {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            error => Err(error.into()),
        }
    }

    /// Waits up to `timeout` for the result of a commit.
    pub fn committed(&self, timeout: Duration) -> Option<Committed> {
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is valid; the event is destroyed below, after everything in it has been copied.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.commits.0, millis);
            if event.is_null() {
                return None;
            }
            let outcome =
                (sys::rd_kafka_event_type(event) == sys::RD_KAFKA_EVENT_OFFSET_COMMIT).then(|| Committed {
                    error: code(sys::rd_kafka_event_error(event)),
                    partitions: partitions(event),
                });
            sys::rd_kafka_event_destroy(event);
            outcome
        }
    }

    /// True once the group coordinator has assigned a member id.
    pub fn is_member(&self) -> bool {
        self.member_id().is_some()
    }

    fn member_id(&self) -> Option<CString> {
        let client = self.consumer.client().native_ptr();
        // SAFETY: the client is valid; the string is null or ours to free with librdkafka's own function.
        unsafe {
            let id = sys::rd_kafka_memberid(client);
            if id.is_null() {
                return None;
            }
            let copy = CStr::from_ptr(id).to_owned();
            sys::rd_kafka_mem_free(client, id.cast());
            (!copy.is_empty()).then_some(copy)
        }
    }

    /// The member id and generation by which a broker recognizes this member; `None` for a client that is not
    /// a member. Inside transactions, brokers accept offsets from a client without a member id whatever its
    /// generation is, for compatibility with clients from before KIP-447. librdkafka clears the id when the
    /// session is lost, which may happen during this call, so the id is read before and after.
    pub fn membership(&self) -> Option<ConsumerGroupMetadata> {
        let before = self.member_id()?;
        let metadata = self.consumer.group_metadata()?;
        (self.member_id()? == before).then_some(metadata)
    }

    /// End offset of the partition as of the last fetch, without a request to the broker.
    pub fn cached_end(&self, topic: &str, partition: i32) -> Option<Offset> {
        self.cached_watermarks(topic, partition).map(|(_, high)| high)
    }

    /// First and end offset of the partition as of the last fetch; the first one is -1 if it is not known.
    pub fn cached_watermarks(&self, topic: &str, partition: i32) -> Option<(Offset, Offset)> {
        let topic = CString::new(topic).ok()?;
        let client = self.consumer.client().native_ptr();
        let (mut low, mut high) = (-1, -1);
        // SAFETY: all pointers are valid for the call.
        let error = unsafe {
            sys::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &mut low, &mut high)
        };
        (error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some((low, high))
    }
}

/// A message that is destroyed when dropped.
struct OwnedMessage(*mut sys::rd_kafka_message_t);

impl Drop for OwnedMessage {
    fn drop(&mut self) {
        // SAFETY: from a batch, and destroyed once.
        unsafe { sys::rd_kafka_message_destroy(self.0) }
    }
}

/// Messages of a batch without an owner yet. Dropping it destroys the rest, also while unwinding.
struct Unread<'a>(&'a [*mut sys::rd_kafka_message_t]);

impl Unread<'_> {
    fn next(&mut self) -> Option<OwnedMessage> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(OwnedMessage(*first))
    }
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}

/// Adds bootstrap servers (`host:port,...`) to a client. The client keeps the list until it is destroyed, so
/// do this only when needed: see [`BootstrapReminder`](crate::kafka::reconnect::BootstrapReminder).
pub(crate) fn add_brokers<C: ClientContext>(client: &Client<C>, list: &str) {
    let Ok(list) = CString::new(list) else { return };
    // SAFETY: client and list are valid; librdkafka copies the list.
    unsafe {
        sys::rd_kafka_brokers_add(client.native_ptr(), list.as_ptr());
    }
}

fn code(error: sys::rd_kafka_resp_err_t) -> Option<RDKafkaErrorCode> {
    (error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into())
}

/// Copies the partitions out of a commit event.
///
/// # Safety
/// `event` must be a valid offset commit event.
unsafe fn partitions(
    event: *mut sys::rd_kafka_event_t,
) -> Vec<(String, i32, Offset, Option<RDKafkaErrorCode>)> {
    // SAFETY: the list belongs to the event; `cnt` elements are valid.
    unsafe {
        let list = sys::rd_kafka_event_topic_partition_list(event);
        if list.is_null() {
            return Vec::new();
        }
        let elements = slice::from_raw_parts((*list).elems, usize::try_from((*list).cnt).unwrap_or(0));
        elements
            .iter()
            .map(|element| {
                let topic = CStr::from_ptr(element.topic).to_string_lossy().into_owned();
                (topic, element.partition, element.offset, code(element.err))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;

//! The three group calls of librdkafka that the rdkafka crate lacks: committed offsets of any group, commits
//! for a group without members, and the description of a group. With them one client serves all groups of a
//! cluster; the safe calls would need a client per group. In: a live consumer, names, a timeout. Out: owned
//! Rust values. Keeps no pointer beyond a call.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::bindings::{self as c, rd_kafka_admin_op_t as Op, rd_kafka_resp_err_t as Code};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::TopicPartitionList;

/// Why a call failed: librdkafka's code and the message of the broker or the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallFailure {
    pub code: RDKafkaErrorCode,
    pub message: String,
}

/// One partition of an answer. `offset` is librdkafka's, so -1001 means "none committed".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionAnswer {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub error: Option<RDKafkaErrorCode>,
}

/// A group as described by its coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupDescription {
    /// "Unknown" for a state that librdkafka has no name for.
    pub state: String,
    /// The broker computes the assignment (KIP-848).
    pub broker_assigns: bool,
    pub members: Vec<GroupMember>,
}

/// A member with its assigned partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupMember {
    pub client_id: String,
    pub host: String,
    pub assigned: Vec<(String, i32)>,
}

/// Offsets that `group` has committed for `partitions`.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
    partitions: &TopicPartitionList,
    timeout: Duration,
) -> Result<Vec<PartitionAnswer>, CallFailure> {
    let group = c_string(group)?;
    // SAFETY: `group` and the list live across the constructor, which copies both.
    let request = Guard::new(
        unsafe { c::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), partitions.ptr()) },
        c::rd_kafka_ListConsumerGroupOffsets_destroy,
    )?;
    let event = call(
        consumer,
        Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
        timeout,
        |rk, options, queue| {
            let mut requests = [request.pointer];
            // SAFETY: one live request, as the call demands; it copies the request.
            unsafe { c::rd_kafka_ListConsumerGroupOffsets(rk, requests.as_mut_ptr(), 1, options, queue) };
        },
    )?;
    // SAFETY: the event lives until the end of this function; the result is null if it is of another type.
    unsafe {
        let result = c::rd_kafka_event_ListConsumerGroupOffsets_result(event.pointer);
        if result.is_null() {
            return Err(unexpected());
        }
        let mut count = 0;
        let groups = c::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
        group_answer(groups, count)
    }
}

/// Commits `offsets` for a group without members; a group with members refuses with UnknownMemberId.
pub(super) fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
    offsets: &TopicPartitionList,
    timeout: Duration,
) -> Result<Vec<PartitionAnswer>, CallFailure> {
    let group = c_string(group)?;
    // SAFETY: as in `committed`.
    let request = Guard::new(
        unsafe { c::rd_kafka_AlterConsumerGroupOffsets_new(group.as_ptr(), offsets.ptr()) },
        c::rd_kafka_AlterConsumerGroupOffsets_destroy,
    )?;
    let event = call(
        consumer,
        Op::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS,
        timeout,
        |rk, options, queue| {
            let mut requests = [request.pointer];
            // SAFETY: as in `committed`.
            unsafe { c::rd_kafka_AlterConsumerGroupOffsets(rk, requests.as_mut_ptr(), 1, options, queue) };
        },
    )?;
    // SAFETY: as in `committed`.
    unsafe {
        let result = c::rd_kafka_event_AlterConsumerGroupOffsets_result(event.pointer);
        if result.is_null() {
            return Err(unexpected());
        }
        let mut count = 0;
        let groups = c::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &mut count);
        group_answer(groups, count)
    }
}

/// State and members of `group`.
pub(super) fn describe<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
    timeout: Duration,
) -> Result<GroupDescription, CallFailure> {
    let group = c_string(group)?;
    let event = call(
        consumer,
        Op::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
        timeout,
        |rk, options, queue| {
            let mut groups = [group.as_ptr()];
            // SAFETY: one live C string, which the call copies.
            unsafe { c::rd_kafka_DescribeConsumerGroups(rk, groups.as_mut_ptr(), 1, options, queue) };
        },
    )?;
    // SAFETY: everything reached from the event lives as long as it, and is copied here.
    unsafe {
        let result = c::rd_kafka_event_DescribeConsumerGroups_result(event.pointer);
        if result.is_null() {
            return Err(unexpected());
        }
        let mut count = 0;
        let groups = c::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        if groups.is_null() || count == 0 {
            return Err(unexpected());
        }
        let group = *groups;
        check(c::rd_kafka_ConsumerGroupDescription_error(group))?;
        let state = text(c::rd_kafka_consumer_group_state_name(
            c::rd_kafka_ConsumerGroupDescription_state(group),
        ));
        let broker_assigns = c::rd_kafka_ConsumerGroupDescription_type(group)
            == c::rd_kafka_consumer_group_type_t::RD_KAFKA_CONSUMER_GROUP_TYPE_CONSUMER;
        let members = (0..c::rd_kafka_ConsumerGroupDescription_member_count(group))
            .map(|index| {
                let member = c::rd_kafka_ConsumerGroupDescription_member(group, index);
                let assignment = c::rd_kafka_MemberDescription_assignment(member);
                let assigned = if assignment.is_null() {
                    Vec::new()
                } else {
                    partitions(c::rd_kafka_MemberAssignment_partitions(assignment))
                };
                GroupMember {
                    client_id: text(c::rd_kafka_MemberDescription_client_id(member)),
                    host: text(c::rd_kafka_MemberDescription_host(member)),
                    assigned: assigned
                        .into_iter()
                        .map(|answer| (answer.topic, answer.partition))
                        .collect(),
                }
            })
            .collect();
        Ok(GroupDescription {
            state,
            broker_assigns,
            members,
        })
    }
}

/// Sends one admin request and waits for its event; librdkafka always answers within `timeout`.
fn call<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    operation: Op,
    timeout: Duration,
    send: impl FnOnce(*mut c::rd_kafka_t, *const c::rd_kafka_AdminOptions_t, *mut c::rd_kafka_queue_t),
) -> Result<Guard<c::rd_kafka_event_t>, CallFailure> {
    let client = consumer.client().native_ptr();
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: `client` lives as long as `consumer`, which outlives this call; queue and options are destroyed
    // by their guards after the answer has arrived, or after librdkafka itself has failed the request.
    let (queue, options) = unsafe {
        (
            Guard::new(c::rd_kafka_queue_new(client), c::rd_kafka_queue_destroy)?,
            Guard::new(
                c::rd_kafka_AdminOptions_new(client, operation),
                c::rd_kafka_AdminOptions_destroy,
            )?,
        )
    };
    let mut message = [0 as c_char; 256];
    // SAFETY: live options; the buffer's length is given.
    let code = unsafe {
        c::rd_kafka_AdminOptions_set_request_timeout(
            options.pointer,
            milliseconds,
            message.as_mut_ptr(),
            message.len(),
        )
    };
    if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        // SAFETY: on error librdkafka has written a terminated text.
        return Err(CallFailure {
            code: code.into(),
            message: unsafe { text(message.as_ptr()) },
        });
    }
    send(client, options.pointer, queue.pointer);
    // SAFETY: live queue. The additional second is for the transfer of the answer from librdkafka's main
    // thread to this queue.
    let event = unsafe { c::rd_kafka_queue_poll(queue.pointer, milliseconds.saturating_add(1000)) };
    let event = Guard::new(event, c::rd_kafka_event_destroy).map_err(|_| CallFailure {
        code: RDKafkaErrorCode::OperationTimedOut,
        message: "no answer from the client library".into(),
    })?;
    // SAFETY: live event; its error text lives as long.
    unsafe {
        let code = c::rd_kafka_event_error(event.pointer);
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(CallFailure {
                code: code.into(),
                message: text(c::rd_kafka_event_error_string(event.pointer)),
            });
        }
    }
    Ok(event)
}

/// # Safety
/// `groups` must point to `count` live group results.
unsafe fn group_answer(
    groups: *mut *const c::rd_kafka_group_result_t,
    count: usize,
) -> Result<Vec<PartitionAnswer>, CallFailure> {
    if groups.is_null() || count == 0 {
        return Err(unexpected());
    }
    // SAFETY: the caller's promise.
    unsafe {
        check(c::rd_kafka_group_result_error(*groups))?;
        Ok(partitions(c::rd_kafka_group_result_partitions(*groups)))
    }
}

/// # Safety
/// `error` must be null or live.
unsafe fn check(error: *const c::rd_kafka_error_t) -> Result<(), CallFailure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe {
        let code = c::rd_kafka_error_code(error);
        if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        Err(CallFailure {
            code: code.into(),
            message: text(c::rd_kafka_error_string(error)),
        })
    }
}

/// # Safety
/// `list` must be null or a live list.
unsafe fn partitions(list: *const c::rd_kafka_topic_partition_list_t) -> Vec<PartitionAnswer> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: librdkafka keeps `cnt` initialized elements at `elems`; none are read when it is 0.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        (0..count)
            .map(|index| {
                let element = &*(*list).elems.add(index);
                PartitionAnswer {
                    topic: text(element.topic),
                    partition: element.partition,
                    offset: element.offset,
                    error: (element.err != Code::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| element.err.into()),
                }
            })
            .collect()
    }
}

/// # Safety
/// `pointer` must be null or a terminated string.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn c_string(group: &str) -> Result<CString, CallFailure> {
    CString::new(group).map_err(|_| CallFailure {
        code: RDKafkaErrorCode::InvalidArgument,
        message: "the group id holds a NUL character".into(),
    })
}

fn unexpected() -> CallFailure {
    CallFailure {
        code: RDKafkaErrorCode::Fail,
        message: "the client library returned an unexpected result type".into(),
    }
}

/// Owns one librdkafka object; never null.
struct Guard<T> {
    pointer: *mut T,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Guard<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, CallFailure> {
        if pointer.is_null() {
            return Err(CallFailure {
                code: RDKafkaErrorCode::Fail,
                message: "the client library could not create an object".into(),
            });
        }
        Ok(Self { pointer, destroy })
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        // SAFETY: `pointer` is not null, is owned by this guard, and `destroy` is its type's destructor.
        unsafe { (self.destroy)(self.pointer) }
    }
}

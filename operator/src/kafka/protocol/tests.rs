//! kafka-protocol is generated from Kafka's schemas: it must read our requests, and we its answers. It never
//! reads an answer of a broker, because it allocates whatever length an array claims.

use kafka_protocol::messages::{GroupId, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request as TheirRequest, StrBytes};
use proptest::collection::vec;
use proptest::prelude::*;

use super::error_code::ErrorCode;
use super::*;

mod configs;
mod delete_groups;
mod fetch;
mod groups;
mod handshake;
mod leaving;
mod metadata;
mod offsets;
mod records;
mod topics;

const CORRELATION: i32 = 0x0102_0304;

/// Our request as kafka-protocol reads it. Checks the length and the header on the way.
fn written<R: Request, T: TheirRequest>(request: &R, version: i16) -> T {
    let frame = frame(request, version, CORRELATION, "operator");
    let (length, mut message) = frame.split_first_chunk().unwrap();
    assert_eq!(i32::from_be_bytes(*length) as usize, message.len());
    let header = RequestHeader::decode(&mut message, T::header_version(version)).unwrap();
    let expected = RequestHeader::default()
        .with_request_api_key(T::KEY)
        .with_request_api_version(version)
        .with_correlation_id(CORRELATION)
        .with_client_id(Some(text("operator")));
    assert_eq!(header, expected);
    let request = T::decode(&mut message, version).unwrap();
    assert!(message.is_empty(), "{} bytes are too many", message.len());
    request
}

/// The answer `theirs` as we read it, after damaged copies of it.
fn read_back<R: Request, T: Encodable + HeaderVersion>(theirs: &T, version: i16) -> R::Answer {
    let header_version = T::header_version(version);
    let mut header = ResponseHeader::default().with_correlation_id(CORRELATION);
    if header_version == 1 {
        header = header.with_unknown_tagged_field(77, b"tagged".to_vec().into());
    }
    let mut body = Vec::new();
    header.encode(&mut body, header_version).unwrap();
    theirs.encode(&mut body, version).unwrap();

    assert_eq!(correlation_id(&body), Some(CORRELATION));
    refuses_wrong_lengths::<R>(version, &body);
    returns_for_damaged_bytes::<R>(version, &body);
    answer::<R>(version, &body).unwrap()
}

/// About this many places of an answer: all of a short one, and others for each length of a long one.
fn places(body: &[u8], number: usize) -> impl Iterator<Item = usize> {
    let step = 1 + body.len() / number;
    (body.len() % step..body.len()).step_by(step)
}

fn refuses_wrong_lengths<R: Request>(version: i16, body: &[u8]) {
    for end in places(body, 60) {
        assert!(
            answer::<R>(version, &body[..end]).is_err(),
            "{end} of {}",
            body.len()
        );
    }
    assert!(answer::<R>(version, &[body, &[1]].concat()).is_err());
}

/// Overwrites places with the lengths that are most wrong, and flips a bit there.
fn returns_for_damaged_bytes<R: Request>(version: i16, body: &[u8]) {
    let lengths: [&[u8]; 6] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x7f, 0xff],
        &[0x20],
    ];
    for at in places(body, 20) {
        for length in lengths {
            let mut damaged = body.to_vec();
            let end = body.len().min(at + length.len());
            damaged[at..end].copy_from_slice(&length[..end - at]);
            let _ = answer::<R>(version, &damaged);
        }
        let mut damaged = body.to_vec();
        damaged[at] ^= 1 << (at % 8);
        let _ = answer::<R>(version, &damaged);
    }
}

/// A message of ours without its type.
struct Message {
    name: &'static str,
    versions: &'static [i16],
    read: fn(i16, &[u8]) -> Result<(), Malformed>,
}

fn message<R: Request>() -> Message {
    Message {
        name: R::NAME,
        versions: R::VERSIONS,
        read: |version, body| answer::<R>(version, body).map(drop),
    }
}

fn messages() -> [Message; 17] {
    [
        message::<super::handshake::ApiVersions>(),
        message::<super::handshake::SaslHandshake>(),
        message::<super::handshake::SaslAuthenticate>(),
        message::<super::metadata::Metadata>(),
        message::<super::fetch::Fetch>(),
        message::<super::fetch::FetchRecords>(),
        message::<super::offsets::ListOffsets>(),
        message::<super::offsets::OffsetFetch>(),
        message::<super::offsets::OffsetCommit>(),
        message::<super::groups::FindCoordinator>(),
        message::<super::groups::DescribeGroups>(),
        message::<super::groups::ConsumerGroupDescribe>(),
        message::<super::delete_groups::DeleteGroups>(),
        message::<super::leaving::LeaveGroup>(),
        message::<super::leaving::LeavingHeartbeat>(),
        message::<super::topics::CreateTopics>(),
        message::<super::topics::CreatePartitions>(),
    ]
}

#[test]
fn an_array_that_claims_billions_of_elements_is_refused_in_every_message() {
    let lengths: [&[u8]; 2] = [&[0x7f, 0xff, 0xff, 0xff], &[0xff, 0xff, 0xff, 0xff, 0x0f]];
    for message in messages() {
        for &version in message.versions {
            // Zeros are valid values of the fields before the first array.
            let refused = (4..30).any(|zeros| {
                lengths.iter().any(|length| {
                    let body = [&vec![0; zeros], *length].concat();
                    (message.read)(version, &body).is_err_and(|why| why.0.contains("an array claims"))
                })
            });
            let has_array = !matches!(
                (message.name, version),
                ("SaslAuthenticate", _) | ("FindCoordinator", 1)
            );
            assert_eq!(refused, has_array, "{} v{version}", message.name);
        }
    }
}

#[test]
fn a_malformed_answer_says_where() {
    let claims = [0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff];
    let why = answer::<super::offsets::ListOffsets>(5, &claims).unwrap_err();
    assert_eq!(
        why.to_string(),
        "version 5, byte 12 of 12: an array claims 2147483647 elements in 0 bytes"
    );
}

#[test]
fn versions_ascend() {
    for message in messages() {
        assert!(
            message.versions.is_sorted() && !message.versions.is_empty(),
            "{}",
            message.name
        );
    }
}

#[test]
fn an_answer_without_a_correlation_id_is_refused() {
    for length in 0..4 {
        let body = vec![0; length];
        assert_eq!(correlation_id(&body), None);
        for message in messages() {
            for &version in message.versions {
                assert!((message.read)(version, &body).is_err());
            }
        }
    }
    assert_eq!(correlation_id(b"HTTP/1.1 400"), Some(0x4854_5450));
}

proptest! {
    #[test]
    fn random_bytes_are_read_or_refused(
        body in prop_oneof![
            vec(any::<u8>(), 0..200),
            // Small numbers are plausible lengths, so that more fields are read.
            vec(prop_oneof![4 => 0..4_u8, 1 => any::<u8>()], 0..200),
        ],
    ) {
        for message in messages() {
            for &version in message.versions {
                let _ = (message.read)(version, &body);
            }
        }
    }
}

// --- values of both sides ---

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

/// Up to 3 of these.
fn few<S: Strategy>(values: S) -> impl Strategy<Value = Vec<S::Value>> {
    vec(values, 0..4)
}

fn texts() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..6).prop_map(|characters| characters.into_iter().collect())
}

fn maybe_texts() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(texts())
}

fn error_codes() -> impl Strategy<Value = ErrorCode> {
    any::<i16>().prop_map(ErrorCode)
}

//! Answers of brokers that the mock cluster does not give.

use kafka_protocol::records as theirs;
use kafka_protocol::records::{Compression, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use super::super::chunk::{Decoded, Reach, Wanted, decode_now, reach, size_below};
use super::super::partition::{lags, throttled};
use super::*;
use crate::kafka::protocol::error_code::ErrorCode;
use crate::kafka::protocol::fetch::FetchedRecords;

/// A batch of one producer: first offset, transactional, control; offsets and values.
fn batch(producer: i64, transactional: bool, control: bool, records: &[(i64, &[u8])]) -> Vec<u8> {
    let record = |(offset, bytes): &(i64, &[u8])| theirs::Record {
        transactional,
        control,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: producer,
        producer_epoch: 0,
        timestamp_type: TimestampType::Creation,
        offset: *offset,
        sequence: (*offset - records[0].0) as i32,
        timestamp: 1000 + *offset,
        key: Some(bytes.to_vec().into()),
        value: Some(vec![0; 6].into()),
        headers: Default::default(),
    };
    let records: Vec<theirs::Record> = records.iter().map(record).collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut bytes = Vec::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes
}

const ABORT: &[u8] = &[0, 0, 0, 0];
const COMMIT: &[u8] = &[0, 0, 0, 1];

fn answer(aborted: &[(i64, i64)], batches: &[Vec<u8>]) -> FetchedRecords {
    FetchedRecords {
        error: ErrorCode::NONE,
        throttle: 0,
        log_start: 0,
        last_stable: 100,
        aborted: aborted.to_vec(),
        records: batches.concat(),
    }
}

fn decoded(answer: &FetchedRecords, start: i64, end: i64) -> Decoded<i64> {
    newest(answer, (start, end), usize::MAX)
}

fn newest(answer: &FetchedRecords, (start, end): (i64, i64), limit: usize) -> Decoded<i64> {
    let wanted = Wanted {
        partition: 0,
        start,
        end,
        limit,
    };
    decode_now(answer, wanted, &|_, record| Some(record.offset))
}

fn offsets(decoded: &Decoded<i64>) -> Vec<i64> {
    decoded.entries.iter().map(|entry| entry.offset).collect()
}

#[test]
fn records_of_aborted_transactions_and_markers_are_not_shown() {
    let answer = answer(
        // Producer 1 aborts a transaction, and then commits one.
        &[(2, 4), (1, 0)],
        &[
            batch(1, true, false, &[(0, b"a"), (1, b"a")]),
            batch(2, true, false, &[(2, b"c")]),
            batch(3, false, false, &[(3, b"plain")]),
            batch(2, true, true, &[(4, COMMIT)]),
            batch(1, true, true, &[(5, ABORT)]),
            batch(2, true, false, &[(6, b"a")]),
            batch(1, true, false, &[(7, b"c")]),
            batch(2, true, true, &[(8, ABORT)]),
            batch(1, true, true, &[(9, COMMIT)]),
        ],
    );
    let found = decoded(&answer, 0, 10);
    assert_eq!(offsets(&found), [7, 3, 2]);
    assert_eq!((found.looked, found.first), (3, Some(2)));
}

#[test]
fn a_batch_that_cannot_be_read_is_one_entry_and_the_others_are_shown() {
    let mut damaged = batch(-1, false, false, &[(2, b"x"), (3, b"x")]);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let good = batch(-1, false, false, &[(4, b"y"), (5, b"y")]);
    let answer = answer(
        &[],
        &[batch(-1, false, false, &[(0, b"y"), (1, b"y")]), damaged, good],
    );
    assert_eq!(reach(&answer.records), Reach::To(5, false));
    let found = decoded(&answer, 1, 5);
    assert_eq!(offsets(&found), [4, 3, 1]);
    match &found.entries[1].shown {
        Shown::Unreadable { first: 2, why } => assert!(why.contains("checksum"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_says_how_far_it_reaches() {
    let one = batch(-1, false, false, &[(0, b"y"), (1, b"y")]);
    assert_eq!(reach(&[]), Reach::Empty);
    assert_eq!(reach(&one[..30]), Reach::Cut);
    assert_eq!(reach(&one), Reach::To(1, false));
    assert_eq!(reach(&[&one[..], &one[..5]].concat()), Reach::To(1, true));
    let mut damaged = one.clone();
    damaged[8..12].copy_from_slice(&(-5_i32).to_be_bytes());
    assert_eq!(reach(&damaged), Reach::Damaged(None));
    assert_eq!(reach(&[one, damaged].concat()), Reach::Damaged(Some(1)));
}

#[test]
fn only_the_newest_records_that_are_wanted_are_kept() {
    let many: Vec<(i64, &[u8])> = (0..1000).map(|offset| (offset, &b"x"[..])).collect();
    let mut damaged = batch(-1, false, false, &[(1000, b"x"), (1001, b"x")]);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let answer = answer(
        &[],
        &[
            batch(-1, false, false, &many),
            damaged,
            batch(-1, false, false, &[(1002, b"x")]),
        ],
    );
    let found = newest(&answer, (0, 2000), 4);
    assert_eq!(offsets(&found), [1002, 1001, 999, 998]);
    assert!(found.dropped && found.entries.capacity() < 100, "{found:?}");
    assert_eq!((found.looked, found.first), (1001, Some(0)));
    let found = newest(&answer, (998, 2000), 4);
    assert_eq!(offsets(&found), [1002, 1001, 999, 998]);
    assert!(!found.dropped);
    // Those of a batch that is damaged are one entry, however many it has.
    let found = newest(&answer, (1000, 1002), 1);
    assert_eq!((offsets(&found), found.dropped), (vec![1001], false));
}

#[test]
fn the_size_of_a_step_does_not_contain_what_was_read_before() {
    let one = batch(-1, false, false, &[(0, b"x"), (1, b"x")]);
    let two = batch(-1, false, false, &[(5, b"x")]);
    let both = [&one[..], &two[..]].concat();
    for (end, size) in [
        (0, 0),
        (1, one.len()),
        (5, one.len()),
        (6, both.len()),
        (9, both.len()),
    ] {
        assert_eq!(size_below(&both, end), size, "below {end}");
    }
    assert_eq!(size_below(&both[..both.len() - 1], 9), one.len());
}

#[test]
fn an_empty_answer_of_a_leader_that_lags_is_not_the_end() {
    let mut empty = answer(&[], &[]);
    assert!(!lags(&empty, 100) && lags(&empty, 101));
    // Not known.
    empty.last_stable = -1;
    assert!(!lags(&empty, 101));
    let full = answer(&[], &[batch(-1, false, false, &[(0, b"x")])]);
    assert!(!lags(&full, 101));
}

#[test]
fn a_quota_says_when_to_try_again() {
    for (milliseconds, seconds) in [
        (0, "in 1 s"),
        (1, "in 1 s"),
        (1000, "in 1 s"),
        (1001, "in 2 s"),
        (i32::MAX, " s"),
    ] {
        let why = throttled(milliseconds).message();
        assert!(why.contains("quota") && why.ends_with(seconds), "{why}");
    }
}

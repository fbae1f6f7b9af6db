//! Batches of records as clients write them, compressed in all ways, and as no client writes them.

use std::io::Write as _;

use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records as theirs;
use kafka_protocol::records::{Compression, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use super::super::records::compression::{Codec, NotDecompressed, decompress};
use super::super::records::{Batches, Record};
use super::*;

const HEADER: usize = 61;
const LIMIT: usize = 1 << 20;

type Owned = (
    i64,
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(String, Option<Vec<u8>>)>,
);

fn payload() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(vec(any::<u8>(), 0..40))
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    // Names that repeat are not kept by kafka-protocol, so each has its number.
    let headers = few(payload()).prop_map(|values| {
        let named = values.into_iter().enumerate();
        named
            .map(|(number, value)| (format!("h{number}"), value))
            .collect::<Vec<_>>()
    });
    let record = (0..1_i64 << 40, payload(), payload(), headers);
    (0..1_i64 << 50, vec(record, 1..6)).prop_map(|(first, records)| {
        let numbered = records.into_iter().enumerate();
        numbered
            .map(|(number, (time, key, value, headers))| (first + number as i64, time, key, value, headers))
            .collect()
    })
}

fn encoded(records: &[Owned]) -> Vec<u8> {
    let record = |(offset, timestamp, key, value, headers): &Owned| theirs::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: 7,
        producer_epoch: 1,
        timestamp_type: TimestampType::Creation,
        offset: *offset,
        sequence: (*offset - records[0].0) as i32,
        timestamp: *timestamp,
        key: key.clone().map(Into::into),
        value: value.clone().map(Into::into),
        headers: headers
            .iter()
            .map(|(name, value)| (text(name), value.clone().map(Into::into)))
            .collect::<IndexMap<_, _>>(),
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

/// The same batch with another body and other attributes.
fn replaced(batch: &[u8], attributes: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&batch[..HEADER], body].concat();
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// All ways in which clients compress: number of the codec, compressed bytes.
fn compressed(body: &[u8]) -> Vec<(i16, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body).unwrap();
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(body).unwrap();
    let snappy = |body: &[u8]| snap::raw::Encoder::new().compress_vec(body).unwrap();
    let mut xerial = [&b"\x82SNAPPY\0"[..], &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
    for block in body.chunks(20) {
        let block = snappy(block);
        xerial.extend(i32::try_from(block.len()).unwrap().to_be_bytes());
        xerial.extend(block);
    }
    let zstd = zstd::stream::encode_all(body, 3).unwrap();
    [
        (1, gzip.finish().unwrap()),
        (2, snappy(body)),
        (2, xerial),
        (3, lz4.finish().unwrap()),
        (4, zstd),
    ]
    .into()
}

fn owned(record: &Record<'_>) -> Owned {
    let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), bytes(*value)));
    (
        record.offset,
        record.timestamp,
        bytes(record.key),
        bytes(record.value),
        headers.collect(),
    )
}

/// The records of all batches, or why one cannot be read.
fn read(bytes: &[u8], limit: usize) -> Result<Vec<Owned>, String> {
    let mut found = Vec::new();
    for batch in Batches::new(bytes) {
        let batch = batch.map_err(|malformed| malformed.to_string())?;
        let bytes = batch.bytes(limit)?;
        batch.records(&bytes, |record| found.push(owned(&record)))?;
    }
    Ok(found)
}

proptest! {
    #[test]
    fn records_are_read_in_every_compression(records in records(), second in records()) {
        let plain = encoded(&records);
        let mut batches = vec![plain.clone()];
        for (codec, body) in compressed(&plain[HEADER..]) {
            batches.push(replaced(&plain, codec, &body));
        }
        for batch in &batches {
            prop_assert_eq!(read(batch, LIMIT), Ok(records.clone()));
            // Another batch follows, and one that is cut.
            let bytes = [batch, &encoded(&second)[..], &batch[..batch.len() - 1]].concat();
            let mut all = Batches::new(&bytes);
            prop_assert_eq!(all.by_ref().count(), 2);
            prop_assert!(all.is_cut());
            prop_assert_eq!(read(&bytes, LIMIT).unwrap().len(), records.len() + second.len());
        }
    }

    #[test]
    fn a_damaged_batch_is_refused_and_never_a_panic(records in records(), at in any::<usize>(), bit in 0..8_u32) {
        let plain = encoded(&records);
        for (codec, body) in compressed(&plain[HEADER..]).into_iter().chain([(0, plain[HEADER..].to_vec())]) {
            let whole = replaced(&plain, codec, &body);
            let mut damaged = whole.clone();
            let place = at % damaged.len();
            damaged[place] ^= 1_u8 << bit;
            let read_damaged = read(&damaged, LIMIT);
            if place >= 17 {
                prop_assert!(read_damaged.is_err(), "byte {} of {}", place, damaged.len());
            }
            // The same with a checksum that matches.
            let mut body = body.clone();
            let place = at % body.len();
            body[place] ^= 1_u8 << bit;
            let _ = read(&replaced(&plain, codec, &body), LIMIT);
        }
    }

    #[test]
    fn bodies_of_any_bytes_are_read_or_refused(
        codec in 0..8_i16,
        flags in 0..8_i16,
        count in prop_oneof![0..20_i32, any::<i32>()],
        body in prop_oneof![
            vec(any::<u8>(), 0..200),
            vec(prop_oneof![4 => 0..8_u8, 1 => any::<u8>()], 0..200),
        ],
    ) {
        let mut batch = encoded(&[(5, 5, None, None, Vec::new())]);
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        let batch = replaced(&batch, codec | flags << 3, &body);
        let _ = read(&batch, 1000);
        let _ = Batches::new(&batch).flatten().next().unwrap().is_abort();
    }

    #[test]
    fn any_bytes_are_batches_or_not(mut bytes in vec(any::<u8>(), 0..300), length in 0..200_u8) {
        let _ = read(&bytes, 1000);
        // With a plausible length and format.
        if bytes.len() > 17 {
            bytes[8..12].copy_from_slice(&[0, 0, 0, length]);
            bytes[16] = 2;
        }
        let _ = read(&bytes, 1000);
    }
}

#[test]
fn a_batch_that_decompresses_to_too_much_is_refused_before_it_does() {
    let bomb = vec![0; 50 << 20];
    let batch = encoded(&[(5, 5, None, None, Vec::new())]);
    for (codec, body) in compressed(&bomb[..]).into_iter().filter(|(codec, _)| *codec != 2) {
        assert!(body.len() < 1 << 19, "{codec}: {}", body.len());
        let why = read(&replaced(&batch, codec, &body), LIMIT).unwrap_err();
        assert!(why.contains("more than 1 MiB"), "{codec}: {why}");
    }
    let snappy = snap::raw::Encoder::new().compress_vec(&bomb).unwrap();
    let xerial = [
        &b"\x82SNAPPY\0"[..],
        &[0; 8],
        &(snappy.len() as i32).to_be_bytes(),
        &snappy,
    ]
    .concat();
    for body in [&snappy, &xerial] {
        assert_eq!(
            decompress(Codec::Snappy, body, LIMIT),
            Err(NotDecompressed::TooLong)
        );
    }
    // A length that nothing stands behind: 32 MiB in 5 bytes.
    let claim = [0x80, 0x80, 0x80, 0x10, 0];
    assert!(matches!(
        decompress(Codec::Snappy, &claim, 64 << 20),
        Err(NotDecompressed::Damaged(_))
    ));
}

#[test]
fn what_cannot_be_read_says_why() {
    let batch = encoded(&[(5, 5, None, None, Vec::new())]);
    let body = &batch[HEADER..];
    for (bytes, why) in [
        (
            replaced(&batch, 5, body),
            "compressed with codec 5, which cannot be read here",
        ),
        (replaced(&batch, 1, body), "compressed with gzip and damaged"),
        (
            replaced(&batch, 0, &[body, b"x"].concat()),
            "1 bytes follow its records",
        ),
        (replaced(&batch, 0, b""), "record 0"),
        ([&batch[..16], &[1], &batch[17..]].concat(), "format v1"),
    ] {
        let found = read(&bytes, LIMIT).unwrap_err();
        assert!(found.contains(why), "{found}");
    }
    let mut short = batch.clone();
    short[8..12].copy_from_slice(&3_i32.to_be_bytes());
    let mut batches = Batches::new(&short);
    assert!(batches.next().unwrap().is_err() && batches.next().is_none() && !batches.is_cut());
}

#[test]
fn a_marker_says_whether_its_transaction_was_aborted() {
    for (kind, expected) in [(0_u8, true), (1, false)] {
        let marker = encoded(&[(5, 5, Some(vec![0, 0, 0, kind]), Some(vec![0; 6]), Vec::new())]);
        let control = replaced(&marker, 1 << 5 | 1 << 4, &marker[HEADER..]);
        let batch = Batches::new(&control).next().unwrap().unwrap();
        assert_eq!((batch.is_control, batch.is_abort()), (true, expected));
        // A record of a program that looks like a marker is none.
        let batch = Batches::new(&marker).next().unwrap().unwrap();
        assert!(!batch.is_abort());
    }
}

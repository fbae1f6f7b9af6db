//! Batches of records, format v2. In: the records of a Fetch answer, written by untrusted producers. Out: batches
//! and their records, or why a batch cannot be read. Never panics; memory is bounded by the bytes that are there
//! and by a limit for what is compressed.

pub(in crate::kafka) mod compression;

use std::borrow::Cow;

use super::codec::{Malformed, Reader};
use compression::{Codec, NotDecompressed, decompress};

/// Bytes before the length of a batch and the length itself.
const PREFIX: usize = 12;
/// Where the format is, in all formats.
const MAGIC_AT: usize = 16;
/// Where the bytes of the checksum begin: behind it.
const CHECKED_FROM: usize = 21;
/// Format v2, since Kafka 0.11.
const MAGIC: i8 = 2;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
/// Type of the control record that ends an aborted transaction.
const ABORT: i16 = 0;

/// Headers of one record: a header takes 32 bytes of memory and may have 2.
const HEADERS: i64 = 100_000;

/// A record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub offset: i64,
    /// Unix milliseconds; negative: none.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// One batch whose bytes are complete.
#[derive(Clone, Debug)]
pub(in crate::kafka) struct Batch<'a> {
    pub base_offset: i64,
    pub last_offset: i64,
    /// The latest timestamp of its records, in Unix milliseconds; negative: none or unknown.
    pub max_timestamp: i64,
    pub producer: i64,
    pub is_transactional: bool,
    /// Markers of transactions instead of records.
    pub is_control: bool,
    base_timestamp: i64,
    log_append_time: bool,
    codec: Codec,
    count: i32,
    body: &'a [u8],
    /// Why it cannot be read.
    fault: Option<String>,
}

/// The batches of an answer, one after the other. Ends at a batch that is cut, as the last one of an answer is.
#[derive(Clone, Debug)]
pub(in crate::kafka) struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    pub fn new(records: &'a [u8]) -> Self {
        Self { rest: records }
    }

    /// Bytes behind those batches that were returned.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// True if a batch is cut behind those that were returned.
    pub fn is_cut(&self) -> bool {
        !self.rest.is_empty()
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let prefix: &[u8; PREFIX] = self.rest.first_chunk()?;
        let [.., a, b, c, d] = *prefix;
        let length = i32::from_be_bytes([a, b, c, d]);
        // Shorter than the format of the batch: where the next one begins is unknown.
        let Some(length) = usize::try_from(length)
            .ok()
            .filter(|length| *length > MAGIC_AT - PREFIX)
        else {
            self.rest = &[];
            return Some(Err(Malformed(format!("a batch has the length {length}"))));
        };
        let (whole, rest) = self.rest.split_at_checked(length.saturating_add(PREFIX))?;
        self.rest = rest;
        Some(Batch::read(whole))
    }
}

impl<'a> Batch<'a> {
    fn read(whole: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(whole, false);
        let base_offset = reader.i64()?;
        let _length = reader.i32()?;
        let _leader_epoch = reader.i32()?;
        let magic = reader.i8()?;
        let mut batch = Self {
            base_offset,
            last_offset: base_offset,
            max_timestamp: -1,
            producer: -1,
            is_transactional: false,
            is_control: false,
            base_timestamp: -1,
            log_append_time: false,
            codec: Codec::None,
            count: 0,
            body: &[],
            fault: None,
        };
        if magic != MAGIC {
            batch.fault = Some(format!(
                "it has the format v{magic}; only v2, of Kafka 0.11 and later, can be read"
            ));
            return Ok(batch);
        }
        let checksum = reader.i32()? as u32;
        let attributes = reader.i16()?;
        let last = i64::from(reader.i32()?);
        // An offset that does not exist would make the reader jump.
        batch.last_offset = base_offset.saturating_add(last.max(0));
        (batch.base_timestamp, batch.max_timestamp) = (reader.i64()?, reader.i64()?);
        batch.producer = reader.i64()?;
        let _epoch_and_sequence = (reader.i16()?, reader.i32()?);
        batch.count = reader.i32()?;
        batch.is_transactional = attributes & TRANSACTIONAL != 0;
        batch.is_control = attributes & CONTROL != 0;
        batch.log_append_time = attributes & LOG_APPEND_TIME != 0;
        batch.codec = Codec::of_attributes(attributes);
        batch.body = reader.take(reader.remaining())?;
        if crc32c::crc32c(&whole[CHECKED_FROM..]) != checksum {
            batch.fault = Some("it is damaged: its checksum does not match".into());
        }
        Ok(batch)
    }

    /// The records as bytes, at most `limit`.
    pub fn bytes(&self, limit: usize) -> Result<Cow<'a, [u8]>, String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        if self.codec == Codec::None {
            return Ok(Cow::Borrowed(self.body));
        }
        let name = self.codec.name();
        let bytes = decompress(self.codec, self.body, limit);
        bytes.map(Cow::Owned).map_err(|why| match why {
            NotDecompressed::TooLong => format!(
                "it is compressed with {name} and has more than {} MiB when it is decompressed",
                limit >> 20
            ),
            NotDecompressed::Damaged(why) => format!("it is compressed with {name} and damaged: {why}"),
            NotDecompressed::Unknown => format!("it is compressed with {name}, which cannot be read here"),
        })
    }

    /// Calls `each` with each of the records in `bytes`, which are those of [`Batch::bytes`].
    pub fn records<'b>(&self, bytes: &'b [u8], mut each: impl FnMut(Record<'b>)) -> Result<(), String> {
        let mut reader = Reader::new(bytes, false);
        // A record has one byte at least, so a wrong number ends with the bytes.
        for number in 0..self.count {
            let record = self
                .record(&mut reader)
                .map_err(|Malformed(why)| format!("it is damaged: record {number}: {why}"))?;
            each(record);
        }
        match reader.remaining() {
            0 => Ok(()),
            more => Err(format!("it is damaged: {more} bytes follow its records")),
        }
    }

    fn record<'b>(&self, reader: &mut Reader<'b>) -> Result<Record<'b>, Malformed> {
        let null = || Malformed("its length is null".into());
        let mut reader = Reader::new(reader.varbytes()?.ok_or_else(null)?, false);
        let _attributes = reader.i8()?;
        let timestamp_delta = reader.varlong()?;
        let offset_delta = reader.varlong()?;
        let (key, value) = (reader.varbytes()?, reader.varbytes()?);
        let count = reader.varlong()?;
        if count > HEADERS {
            return Err(Malformed(format!(
                "it has {count} headers; at most {HEADERS} are read"
            )));
        }
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = reader.varbytes()?.ok_or_else(null)?;
            headers.push((name, reader.varbytes()?));
        }
        if reader.remaining() > 0 {
            return Err(Malformed(format!("{} bytes follow", reader.remaining())));
        }
        let offset = self.base_offset.saturating_add(offset_delta);
        if !(self.base_offset..=self.last_offset).contains(&offset) {
            return Err(Malformed(format!("the offset {offset} is not in the batch")));
        }
        Ok(Record {
            offset,
            timestamp: match self.log_append_time {
                true => self.max_timestamp,
                false => self.base_timestamp.saturating_add(timestamp_delta),
            },
            key,
            value,
            headers,
        })
    }

    /// True for the marker at the end of an aborted transaction.
    pub fn is_abort(&self) -> bool {
        /// A marker has about 20 bytes.
        const MARKER: usize = 1024;
        let Ok(bytes) = self.bytes(MARKER) else {
            return false;
        };
        let mut is_abort = false;
        let _ = self.records(&bytes, |record| {
            // A version and a type.
            let key = record.key.and_then(|key| key.get(2..4)).map(<[u8; 2]>::try_from);
            is_abort |= matches!(key, Some(Ok(kind)) if i16::from_be_bytes(kind) == ABORT);
        });
        self.is_control && is_abort
    }
}

//! Decompresses the records of a batch. In: bytes of an untrusted producer, a codec, a limit. Out: the bytes, at
//! most as many as the limit, or why not. Memory grows with what comes out, never with what a length claims.

use std::io::Read;

/// Largest window of zstd: 16 MiB. Level 19, the largest without extra options, needs 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 24;
/// How the snappy library of Java starts its blocks.
const XERIAL: &[u8] = b"\x82SNAPPY\0";
/// That and two versions of 4 bytes.
const XERIAL_HEADER: usize = 16;

/// A codec, as bits 0 to 2 of the attributes of a batch name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
    Unknown(i16),
}

impl Codec {
    pub fn of_attributes(attributes: i16) -> Self {
        match attributes & 0x07 {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            other => Self::Unknown(other),
        }
    }

    /// As `compression.type` names it.
    pub fn name(self) -> String {
        match self {
            Self::None => "none".into(),
            Self::Gzip => "gzip".into(),
            Self::Snappy => "snappy".into(),
            Self::Lz4 => "lz4".into(),
            Self::Zstd => "zstd".into(),
            Self::Unknown(number) => format!("codec {number}"),
        }
    }
}

/// Why there are no bytes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka) enum NotDecompressed {
    /// More bytes than the limit come out.
    TooLong,
    Damaged(String),
    Unknown,
}

/// The decompressed bytes.
pub(in crate::kafka) fn decompress(
    codec: Codec,
    bytes: &[u8],
    limit: usize,
) -> Result<Vec<u8>, NotDecompressed> {
    match codec {
        Codec::None if bytes.len() > limit => Err(NotDecompressed::TooLong),
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => read(flate2::read::MultiGzDecoder::new(bytes), limit),
        Codec::Lz4 => read(lz4_flex::frame::FrameDecoder::new(bytes), limit),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(damaged)?;
            read(decoder, limit)
        }
        Codec::Snappy => match bytes.strip_prefix(XERIAL) {
            Some(_) => xerial(bytes.get(XERIAL_HEADER..).unwrap_or_default(), limit),
            None => snappy(bytes, limit),
        },
        Codec::Unknown(_) => Err(NotDecompressed::Unknown),
    }
}

fn read(decoder: impl Read, limit: usize) -> Result<Vec<u8>, NotDecompressed> {
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(most).read_to_end(&mut out).map_err(damaged)?;
    match out.len() > limit {
        true => Err(NotDecompressed::TooLong),
        false => Ok(out),
    }
}

/// One block, which begins with its length.
fn snappy(bytes: &[u8], limit: usize) -> Result<Vec<u8>, NotDecompressed> {
    /// No byte of a block becomes more than this: a copy of 64 bytes has 2 bytes at least.
    const MOST: usize = 64;
    let length = snap::raw::decompress_len(bytes).map_err(damaged)?;
    if length > limit {
        return Err(NotDecompressed::TooLong);
    }
    if length > bytes.len().saturating_mul(MOST) {
        return Err(NotDecompressed::Damaged(format!(
            "{} bytes claim to be {length}",
            bytes.len()
        )));
    }
    snap::raw::Decoder::new().decompress_vec(bytes).map_err(damaged)
}

/// Blocks, each behind its length in 4 bytes.
fn xerial(mut bytes: &[u8], limit: usize) -> Result<Vec<u8>, NotDecompressed> {
    let mut out = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let Some((block, rest)) = length.and_then(|length| rest.split_at_checked(length)) else {
            return Err(NotDecompressed::Damaged("a snappy block is cut".into()));
        };
        out.extend(snappy(block, limit - out.len())?);
        bytes = rest;
    }
    match bytes {
        [] => Ok(out),
        _ => Err(NotDecompressed::Damaged("a snappy block is cut".into())),
    }
}

fn damaged(error: impl std::fmt::Display) -> NotDecompressed {
    NotDecompressed::Damaged(error.to_string())
}

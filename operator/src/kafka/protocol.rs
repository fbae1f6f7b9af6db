//! The messages of the Kafka protocol that the operator exchanges with brokers, as plain data. In: a request
//! as a struct, or the bytes of an answer. Out: the bytes of the request, or the answer as a struct. Does no
//! I/O, keeps no state and decides nothing: connections, retries and the meaning of errors are elsewhere.
//!
//! An answer is untrusted: a bootstrap address may be wrong, and then any program may answer. Reading an
//! answer therefore never panics, and never allocates memory for a length before that many bytes are there
//! (see [`codec::Reader`]). What cannot be read is [`Malformed`].
//!
//! Each message has one or two versions, which together all brokers from Kafka 2.4 to 4.x accept. The schemas
//! are in `clients/src/main/resources/common/message` of Kafka's repository.

pub(in crate::kafka) mod codec;
pub(in crate::kafka) mod configs;
pub(in crate::kafka) mod delete_groups;
pub(in crate::kafka) mod error_code;
pub(in crate::kafka) mod fetch;
pub(in crate::kafka) mod groups;
pub(in crate::kafka) mod handshake;
pub(in crate::kafka) mod leaving;
pub(in crate::kafka) mod metadata;
pub(in crate::kafka) mod offsets;
pub(in crate::kafka) mod records;
pub(in crate::kafka) mod topics;

#[cfg(test)]
mod tests;

use codec::{Malformed, Reader, Writer};

/// A request and how to read its answer.
pub(in crate::kafka) trait Request {
    /// Number of the request in the protocol ("api key").
    const KEY: i16;
    /// Name in the protocol, for logs and errors.
    const NAME: &'static str;
    /// Versions written here, ascending. Send the newest one that the broker supports.
    const VERSIONS: &'static [i16];
    /// First version with compact lengths and tagged fields.
    const FLEXIBLE_FROM: i16;
    type Answer;

    /// Writes the fields of the request, except the tagged fields at the end of the body ([`frame`] does).
    fn write(&self, version: i16, out: &mut Writer);

    /// Reads the fields of the answer, except the tagged fields at the end of the body ([`answer`] does).
    fn read(version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed>;
}

/// The bytes to send: length, request header, body. The header has version 1, or 2 if the version of the
/// request is flexible.
pub(in crate::kafka) fn frame<R: Request>(
    request: &R,
    version: i16,
    correlation: i32,
    client_id: &str,
) -> Vec<u8> {
    // The client id is never compact, because brokers read it before they know the version.
    let mut out = Writer::new(false);
    out.i16(R::KEY);
    out.i16(version);
    out.i32(correlation);
    out.string(client_id);
    out.set_flexible(version >= R::FLEXIBLE_FROM);
    out.end_of_struct();
    request.write(version, &mut out);
    out.end_of_struct();
    let message = out.into_bytes();
    // A longer message than i32::MAX does not exist: the caller would have to hold 2 GiB of names.
    let length = i32::try_from(message.len()).unwrap_or(i32::MAX);
    [length.to_be_bytes().as_slice(), &message].concat()
}

/// The answer in `body`, which is what follows the length. The caller has matched its correlation id to the
/// request. Bytes after the answer are malformed, because then the fields before them were misread.
pub(in crate::kafka) fn answer<R: Request>(version: i16, body: &[u8]) -> Result<R::Answer, Malformed> {
    let mut reader = Reader::new(body, version >= R::FLEXIBLE_FROM);
    read_all::<R>(version, &mut reader).map_err(|Malformed(why)| {
        let at = body.len() - reader.remaining();
        Malformed(format!("version {version}, byte {at} of {}: {why}", body.len()))
    })
}

fn read_all<R: Request>(version: i16, reader: &mut Reader<'_>) -> Result<R::Answer, Malformed> {
    reader.i32()?;
    reader.end_of_struct()?;
    let answer = R::read(version, reader)?;
    reader.end_of_struct()?;
    // librdkafka's mock broker, which is the embedded one, ends some answers with a second, empty section of
    // tagged fields.
    if reader.remaining() == 1 {
        reader.end_of_struct()?;
    }
    match reader.remaining() {
        0 => Ok(answer),
        more => Err(Malformed(format!("{more} bytes follow the answer"))),
    }
}

/// The correlation id of an answer without its length; None: too short to have one.
pub(in crate::kafka) fn correlation_id(body: &[u8]) -> Option<i32> {
    body.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

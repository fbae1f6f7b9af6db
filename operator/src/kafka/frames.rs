//! What connection and handshake share: frames of the protocol on a stream, and errors in words. In: bytes of
//! an untrusted peer. Out: whole answers of a bounded size, or the likely cause why there is none.

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest answer. A full answer for 5,000 partitions has less than 1 MiB.
const MAX_ANSWER: usize = 64 << 20;

/// How every error about a closed connection starts.
pub(super) const CLOSED: &str = "the connection was closed";

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// The broker cannot be reached, or the connection was lost: another broker may answer, and this one
    /// later.
    Unreachable(String),
    LoginRefused(String),
    /// The broker is too old for the request.
    Unsupported(&'static str),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(message) | Self::LoginRefused(message) => f.write_str(message),
            Self::Unsupported(request) => write!(f, "the broker does not support {request}"),
        }
    }
}

pub(super) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> std::io::Result<()> {
    stream.write_all(frame).await?;
    stream.flush().await
}

/// One answer without its length. Memory grows with the bytes that arrive, not with the length that the peer
/// claims.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, String> {
    let mut length = [0_u8; 4];
    stream
        .read_exact(&mut length)
        .await
        .map_err(|error| cause(&error))?;
    let size = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if size > MAX_ANSWER {
        return Err(not_kafka(length));
    }
    let mut body = Vec::with_capacity(size.min(16 << 10));
    let read = stream
        .take(size as u64)
        .read_to_end(&mut body)
        .await
        .map_err(|error| cause(&error))?;
    if read < size {
        return Err(format!("{CLOSED} within an answer"));
    }
    Ok(body)
}

/// What speaks instead of Kafka, by its first bytes.
fn not_kafka(start: [u8; 4]) -> String {
    match start {
        [b'H', b'T', b'T', b'P'] => "this is an HTTP server, not a Kafka broker".into(),
        // A TLS record: alert or handshake, version 3.x.
        [0x15 | 0x16, 0x03, ..] => "the listener expects TLS; set spec.kafka.tls".into(),
        _ => "its answer is not Kafka's; is this the port of a Kafka listener?".into(),
    }
}

/// The error in words that stay the same from attempt to attempt: they appear in conditions.
pub(super) fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe => CLOSED.into(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "no route to the host".into(),
        ErrorKind::TimedOut => "the connection timed out".into(),
        _ => match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<openssl::ssl::Error>())
        {
            Some(tls) => match tls.ssl_error() {
                Some(stack) => alert(&first_reason(stack)),
                None => CLOSED.into(),
            },
            None => error.to_string(),
        },
    }
}

/// Adds the likely cause to an error if the peer has closed the connection, which it does without a word.
pub(super) fn explain_close(why: String, likely: &str) -> String {
    if why.starts_with(CLOSED) {
        format!("{why}{likely}")
    } else {
        why
    }
}

/// With TLS 1.3 a broker refuses the client's certificate only after the handshake.
fn alert(reason: &str) -> String {
    let certificate = ["certificate", "unknown ca"]
        .iter()
        .any(|word| reason.contains(word));
    if reason.contains("alert") && certificate {
        format!(
            "the broker expects a client certificate and accepts none or not this one ({reason}); check spec.kafka.tls.clientCertificate"
        )
    } else {
        format!("TLS: {reason}")
    }
}

/// The library's words without file names and line numbers.
pub(super) fn first_reason(stack: &openssl::error::ErrorStack) -> String {
    let reason = stack.errors().first().and_then(|error| error.reason());
    reason.unwrap_or("unknown reason").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn other_protocols_are_recognized_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], "HTTP server"),
            (&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x46][..], "expects TLS"),
            (&[0xff; 8][..], "not Kafka's"),
            (&[0, 0, 0, 9, 1, 2][..], "within an answer"),
            (&[0, 0][..], "closed"),
        ] {
            let mut stream = bytes;
            let error = read_frame(&mut stream).await.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn memory_grows_with_the_bytes_that_arrive() {
        let mut stream: Vec<u8> = i32::try_from(MAX_ANSWER).unwrap().to_be_bytes().to_vec();
        stream.extend([7; 100]);
        assert!(read_frame(&mut &stream[..]).await.is_err());
        let mut whole = 100_i32.to_be_bytes().to_vec();
        whole.extend([7; 100]);
        assert_eq!(read_frame(&mut &whole[..]).await.unwrap(), [7; 100]);
    }
}

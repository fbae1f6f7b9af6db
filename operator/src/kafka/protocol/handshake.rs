//! The messages at the start of a connection: which versions the broker supports, and the SASL login. In and
//! out: see [`Request`]. Secrets pass through, so the bytes of a login never appear in a Debug output.

use std::fmt;

use super::Request;
use super::codec::{Malformed, Reader, Writer};
use super::error_code::ErrorCode;

/// Asks which requests the broker supports, in which versions.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct ApiVersions;

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct ApiVersionsAnswer {
    /// UNSUPPORTED_VERSION answers newer versions of the request only, but a proxy may do anything.
    pub error: ErrorCode,
    pub apis: Vec<ApiRange>,
}

/// The versions of one request that the broker supports.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct ApiRange {
    /// [`Request::KEY`].
    pub key: i16,
    pub min: i16,
    /// Included.
    pub max: i16,
}

impl Request for ApiVersions {
    const KEY: i16 = 18;
    const NAME: &'static str = "ApiVersions";
    /// Every broker answers version 0, so nothing has to be known of the broker.
    const VERSIONS: &'static [i16] = &[0];
    /// Not 3, as the schema says: the header of the answer never has tagged fields.
    const FLEXIBLE_FROM: i16 = i16::MAX;
    type Answer = ApiVersionsAnswer;

    fn write(&self, _version: i16, _out: &mut Writer) {}

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        Ok(ApiVersionsAnswer {
            error: ErrorCode(reader.i16()?),
            apis: reader.array(|reader| {
                Ok(ApiRange {
                    key: reader.i16()?,
                    min: reader.i16()?,
                    max: reader.i16()?,
                })
            })?,
        })
    }
}

/// Opens a SASL login.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct SaslHandshake {
    pub mechanism: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct SaslHandshakeAnswer {
    pub error: ErrorCode,
    /// The mechanisms that the broker supports.
    pub mechanisms: Vec<String>,
}

impl Request for SaslHandshake {
    const KEY: i16 = 17;
    const NAME: &'static str = "SaslHandshake";
    /// After version 0, the login would follow without any framing.
    const VERSIONS: &'static [i16] = &[1];
    const FLEXIBLE_FROM: i16 = i16::MAX;
    type Answer = SaslHandshakeAnswer;

    fn write(&self, _version: i16, out: &mut Writer) {
        out.string(&self.mechanism);
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        Ok(SaslHandshakeAnswer {
            error: ErrorCode(reader.i16()?),
            mechanisms: reader.array(Reader::string)?,
        })
    }
}

/// One message of the SASL mechanism.
#[derive(Clone, PartialEq)]
pub(in crate::kafka) struct SaslAuthenticate {
    pub bytes: Vec<u8>,
}

#[derive(Clone, PartialEq)]
pub(in crate::kafka) struct SaslAuthenticateAnswer {
    pub error: ErrorCode,
    pub message: Option<String>,
    pub bytes: Vec<u8>,
    /// After this time the broker closes the connection unless the client logs in again; 0: never.
    pub session_lifetime_milliseconds: i64,
}

impl Request for SaslAuthenticate {
    const KEY: i16 = 36;
    const NAME: &'static str = "SaslAuthenticate";
    const VERSIONS: &'static [i16] = &[1];
    const FLEXIBLE_FROM: i16 = 2;
    type Answer = SaslAuthenticateAnswer;

    fn write(&self, _version: i16, out: &mut Writer) {
        out.bytes(&self.bytes);
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        Ok(SaslAuthenticateAnswer {
            error: ErrorCode(reader.i16()?),
            message: reader.nullable_string()?,
            bytes: reader.bytes()?.to_vec(),
            session_lifetime_milliseconds: reader.i64()?,
        })
    }
}

impl fmt::Debug for SaslAuthenticate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslAuthenticate").finish_non_exhaustive()
    }
}

impl fmt::Debug for SaslAuthenticateAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslAuthenticateAnswer")
            .field("error", &self.error)
            .field("message", &self.message)
            .field(
                "session_lifetime_milliseconds",
                &self.session_lifetime_milliseconds,
            )
            .finish_non_exhaustive()
    }
}

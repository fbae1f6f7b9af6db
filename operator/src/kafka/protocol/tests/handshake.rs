//! ApiVersions and the SASL login.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::api_versions_response::ApiVersion;

use super::super::handshake::*;
use super::*;

proptest! {
    #[test]
    fn api_versions(error in error_codes(), apis in few(any::<(i16, i16, i16)>())) {
        let request: theirs::ApiVersionsRequest = written(&ApiVersions, 0);
        prop_assert_eq!(request, theirs::ApiVersionsRequest::default());

        let answer = ApiVersionsAnswer {
            error,
            apis: apis.into_iter().map(|(key, min, max)| ApiRange { key, min, max }).collect(),
        };
        let api = |api: &ApiRange| {
            ApiVersion::default()
                .with_api_key(api.key)
                .with_min_version(api.min)
                .with_max_version(api.max)
        };
        let theirs = theirs::ApiVersionsResponse::default()
            .with_error_code(answer.error.0)
            .with_api_keys(answer.apis.iter().map(api).collect());
        prop_assert_eq!(read_back::<ApiVersions, _>(&theirs, 0), answer);
    }

    #[test]
    fn sasl_handshake(mechanism in texts(), error in error_codes(), mechanisms in few(texts())) {
        let request: theirs::SaslHandshakeRequest =
            written(&SaslHandshake { mechanism: mechanism.clone() }, 1);
        prop_assert_eq!(
            request,
            theirs::SaslHandshakeRequest::default().with_mechanism(text(&mechanism))
        );

        let theirs = theirs::SaslHandshakeResponse::default()
            .with_error_code(error.0)
            .with_mechanisms(mechanisms.iter().map(|name| text(name)).collect());
        prop_assert_eq!(
            read_back::<SaslHandshake, _>(&theirs, 1),
            SaslHandshakeAnswer { error, mechanisms }
        );
    }

    #[test]
    fn sasl_authenticate(
        bytes in vec(any::<u8>(), 0..40),
        error in error_codes(),
        message in maybe_texts(),
        session_lifetime_milliseconds: i64,
    ) {
        let request: theirs::SaslAuthenticateRequest =
            written(&SaslAuthenticate { bytes: bytes.clone() }, 1);
        prop_assert_eq!(
            request,
            theirs::SaslAuthenticateRequest::default().with_auth_bytes(bytes.clone().into())
        );

        let theirs = theirs::SaslAuthenticateResponse::default()
            .with_error_code(error.0)
            .with_error_message(message.as_deref().map(text))
            .with_auth_bytes(bytes.clone().into())
            .with_session_lifetime_ms(session_lifetime_milliseconds);
        prop_assert_eq!(
            read_back::<SaslAuthenticate, _>(&theirs, 1),
            SaslAuthenticateAnswer { error, message, bytes, session_lifetime_milliseconds }
        );
    }
}

#[test]
fn the_bytes_of_a_login_are_not_in_the_debug_output() {
    let request = SaslAuthenticate {
        bytes: b"\0user\0secret".to_vec(),
    };
    assert_eq!(format!("{request:?}"), "SaslAuthenticate { .. }");
    let answer = SaslAuthenticateAnswer {
        error: ErrorCode(58),
        message: None,
        bytes: vec![42],
        session_lifetime_milliseconds: 0,
    };
    assert!(!format!("{answer:?}").contains("42"), "{answer:?}");
}

//! The client's side of SCRAM (RFC 5802) as a pure state machine. In: user, password, the server's messages.
//! Out: the client's messages; an error if the server's answer is wrong or does not prove that the server
//! knows the password, too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::sign::Signer;

/// The hash of the mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn digest(self) -> MessageDigest {
        match self {
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }
}

/// Kafka's brokers use 4096 to 16384 rounds. Fewer would weaken the password, and the server must not decide
/// how long the client computes.
const ROUNDS: std::ops::RangeInclusive<usize> = 4096..=1_000_000;

/// "n,,", no channel binding, in base64.
const NO_CHANNEL_BINDING: &str = "biws";

/// A login that waits for the server's first message.
pub(super) struct Scram {
    hash: Hash,
    password: String,
    nonce: String,
    client_first_bare: String,
}

impl Scram {
    /// `nonce` is random and printable, without a comma.
    pub(super) fn new(hash: Hash, username: &str, password: &str, nonce: String) -> Self {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Self {
            hash,
            password: password.into(),
            client_first_bare: format!("n={username},r={nonce}"),
            nonce,
        }
    }

    /// The first message.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.client_first_bare)
    }

    /// The second message, and the signature that the server has to answer.
    pub(super) fn second(self, server_first: &[u8]) -> Result<(String, ServerSignature), String> {
        let server_first =
            std::str::from_utf8(server_first).map_err(|_| "the SCRAM message is not text".to_string())?;
        let field = |name: &str| {
            server_first
                .split(',')
                .find_map(|field| field.strip_prefix(name))
                .ok_or_else(|| format!("the SCRAM message has no field {name}"))
        };
        let nonce = field("r=")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the SCRAM message belongs to another login".into());
        }
        let salt = BASE64
            .decode(field("s=")?)
            .map_err(|_| "the SCRAM salt is not base64".to_string())?;
        let rounds: usize = field("i=")?
            .parse()
            .ok()
            .filter(|rounds| ROUNDS.contains(rounds))
            .ok_or_else(|| format!("the SCRAM iterations are not within {ROUNDS:?}"))?;
        let without_proof = format!("c={NO_CHANNEL_BINDING},r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.client_first_bare);
        let (proof, signature) = self
            .prove(&salt, rounds, signed.as_bytes())
            .map_err(|error| format!("OpenSSL: {error}"))?;
        Ok((
            format!("{without_proof},p={}", BASE64.encode(proof)),
            ServerSignature(signature),
        ))
    }

    fn prove(&self, salt: &[u8], rounds: usize, signed: &[u8]) -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
        let digest = self.hash.digest();
        let mut salted = vec![0; digest.size()];
        pbkdf2_hmac(self.password.as_bytes(), salt, rounds, digest, &mut salted)?;
        let client_key = hmac(digest, &salted, b"Client Key")?;
        let stored_key = hash(digest, &client_key)?;
        let client_signature = hmac(digest, &stored_key, signed)?;
        let proof = client_key
            .iter()
            .zip(client_signature)
            .map(|(key, signature)| key ^ signature);
        let server_key = hmac(digest, &salted, b"Server Key")?;
        Ok((proof.collect(), hmac(digest, &server_key, signed)?))
    }
}

/// What a server that knows the password answers at the end.
pub(super) struct ServerSignature(Vec<u8>);

impl ServerSignature {
    pub(super) fn verify(&self, server_final: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(server_final).unwrap_or_default();
        if let Some(error) = text.strip_prefix("e=") {
            return Err(error.into());
        }
        let signature = text
            .split(',')
            .find_map(|field| field.strip_prefix("v="))
            .and_then(|signature| BASE64.decode(signature).ok());
        match signature {
            Some(signature) if signature == self.0 => Ok(()),
            _ => Err("the broker cannot prove that it knows the password".into()),
        }
    }
}

fn hmac(digest: MessageDigest, key: &[u8], data: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    Signer::new(digest, &*PKey::hmac(key)?)?.sign_oneshot_to_vec(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    fn example() -> Scram {
        Scram::new(Hash::Sha256, "user", "pencil", "rOprNGfwEbeRWgbNEkqO".into())
    }

    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_example_of_rfc_7677_is_computed_exactly() {
        let scram = example();
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (second, signature) = scram.second(SERVER_FIRST.as_bytes()).unwrap();
        assert_eq!(
            second,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        signature
            .verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
            .unwrap();
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_refused() {
        let (_, signature) = example().second(SERVER_FIRST.as_bytes()).unwrap();
        for answer in ["v=AAAA", "", "v=", "e=other-error"] {
            assert!(signature.verify(answer.as_bytes()).is_err(), "{answer}");
        }
    }

    #[test]
    fn wrong_messages_of_the_server_are_errors() {
        for wrong in [
            "",
            "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            // The client's own nonce, repeated.
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
        ] {
            assert!(example().second(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(example().second(b"\xff").is_err());
    }

    #[test]
    fn commas_and_equal_signs_in_a_user_name_are_escaped() {
        let scram = Scram::new(Hash::Sha512, "a=b,c", "p", "x".into());
        assert_eq!(scram.first(), "n,,n=a=3Db=2Cc,r=x");
    }
}

//! The token of a request. In: headers. Out: a token that no log can show, or a problem. Checks the form only.

use std::fmt;

use axum::http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest as _, Sha256};

use super::problem::Problem;

/// Longest token. Those of clusters have 1 to 4 KiB.
const LONGEST: usize = 16 * 1024;

/// A bearer token.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token in `Authorization: Bearer TOKEN`.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Err(Problem::unauthorized(
                "Unauthorized",
                "the request has no token; send the header Authorization: Bearer TOKEN, with a token that the API server of this cluster accepts (kubectl create token NAME)",
            ));
        };
        let invalid = |why: &str| {
            Err(Problem::unauthorized(
                "InvalidToken",
                format!("{why}; send Authorization: Bearer TOKEN once"),
            ))
        };
        if values.next().is_some() {
            return invalid("the header Authorization is there twice");
        }
        let Ok(value) = value.to_str() else {
            return invalid("the header Authorization is not ASCII");
        };
        let token = match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return invalid("the header Authorization is not of the type Bearer"),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=:".contains(&byte);
        if token.is_empty() || token.len() > LONGEST || !token.bytes().all(allowed) {
            return invalid("the text after Bearer is not a token");
        }
        Ok(Self(token.into()))
    }

    /// The text, for the API server only.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }

    /// What caches keep instead of the token.
    pub(super) fn key(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(values: &[&str]) -> Result<String, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        let token = Token::of(&headers).map_err(|problem| problem.reason)?;
        Ok(token.secret().to_string())
    }

    #[test]
    fn a_token_is_one_bearer_token() {
        assert_eq!(token(&["Bearer abc.d-e_f"]), Ok("abc.d-e_f".into()));
        assert_eq!(token(&["bearer  abc"]), Ok("abc".into()));
        assert_eq!(token(&[]), Err("Unauthorized"));
        for values in [
            &["Bearer"][..],
            &["Bearer "],
            &["Basic YTpi"],
            &["Bearer a b"],
            &["Bearer a", "Bearer b"],
            &["abc"],
        ] {
            assert_eq!(token(values), Err("InvalidToken"), "{values:?}");
        }
        assert_eq!(
            token(&[&format!("Bearer {}", "a".repeat(20_000))]),
            Err("InvalidToken")
        );
    }

    #[test]
    fn no_log_shows_a_token() {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, "Bearer secret".parse().unwrap());
        let token = Token::of(&headers).unwrap();
        assert!(!format!("{token:?} {token:#?}").contains("secret"));
        assert_ne!(token.key(), [0; 32]);
    }
}

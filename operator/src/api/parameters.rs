//! Parameters of the path and of the query. In: a request. Out: typed parameters, or a problem that names the
//! wrong one. Names that Kubernetes does not have end here: they would be keys of caches and parts of paths.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::kafka::model::GroupKey;

/// Longest namespace, a DNS label.
const LONGEST_LABEL: usize = 63;
/// Longest name, a DNS subdomain.
const LONGEST_NAME: usize = 253;

/// The beginning of a text that a request has sent, for messages.
pub fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(40)]
}

/// The namespace, if Kubernetes can have it. Otherwise what is wrong with it.
pub fn namespace(text: &str) -> Result<&str, String> {
    if text.len() <= LONGEST_LABEL && is_label(text) {
        return Ok(text);
    }
    Err(format!(
        "the namespace \"{}\" is not a DNS label: write at most {LONGEST_LABEL} lower case letters, digits and dashes, with a letter or digit first and last",
        short(text)
    ))
}

/// The group of this namespace and name, if Kubernetes can have it. Otherwise what is wrong.
pub fn group_key(namespace_text: &str, name: &str) -> Result<GroupKey, String> {
    let namespace = namespace(namespace_text)?;
    if name.len() <= LONGEST_NAME && name.split('.').all(is_label) {
        return Ok(GroupKey::new(namespace, name));
    }
    Err(format!(
        "the name \"{}\" is not a DNS subdomain: write at most {LONGEST_NAME} lower case letters, digits, dashes and dots, with a letter or digit at both ends of each part",
        short(name)
    ))
}

/// The group that a query names as NAMESPACE/NAME. Otherwise what is wrong.
pub fn group_of(text: &str) -> Result<GroupKey, String> {
    let (namespace, name) = text
        .split_once('/')
        .ok_or_else(|| format!("\"{}\" is not NAMESPACE/NAME", short(text)))?;
    group_key(namespace, name)
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.bytes().all(inner) && !text.is_empty() && !text.starts_with('-') && !text.ends_with('-')
}

/// The group that a path names.
pub struct GroupPath(pub GroupKey);

impl<S: Send + Sync> FromRequestParts<S> for GroupPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((namespace, name))) => match group_key(&namespace, &name) {
                Ok(key) => Ok(Self(key)),
                Err(why) => Err(Problem::bad_request("InvalidPath", why)),
            },
            Err(rejection) => Err(Problem::bad_request(
                "InvalidPath",
                format!(
                    "{}; write the path as /api/v1/groups/NAMESPACE/NAME, in UTF-8",
                    rejection.body_text()
                ),
            )),
        }
    }
}

/// The group and the reset that a path names.
pub struct ResetPath(pub GroupKey, pub String);

impl<S: Send + Sync> FromRequestParts<S> for ResetPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        type Names = (String, String, String);
        let invalid = |why: String| Problem::bad_request("InvalidPath", why);
        let names = Path::<Names>::from_request_parts(parts, state).await;
        let Path((namespace, name, reset)) = names.map_err(|rejection| {
            invalid(format!(
                "{}; write the path as /api/v1/groups/NAMESPACE/NAME/offset-resets/RESET, in UTF-8",
                rejection.body_text()
            ))
        })?;
        let key = group_key(&namespace, &name).map_err(invalid)?;
        // A reset has a name of the same form.
        let reset = group_key(&namespace, &reset).map_err(invalid)?.name;
        Ok(Self(key, reset))
    }
}

/// The group, the partition and the offset that a path names.
pub struct RecordPath(pub GroupKey, pub i32, pub i64);

impl<S: Send + Sync> FromRequestParts<S> for RecordPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        type Names = (String, String, String, String);
        let invalid = |why: String| Problem::bad_request("InvalidPath", why);
        let names = Path::<Names>::from_request_parts(parts, state).await;
        let Path((namespace, name, partition, offset)) = names.map_err(|rejection| {
            invalid(format!(
                "{}; write the path as /api/v1/groups/NAMESPACE/NAME/dead-letters/PARTITION/OFFSET, in UTF-8",
                rejection.body_text()
            ))
        })?;
        let key = group_key(&namespace, &name).map_err(invalid)?;
        let number = |what: &str, text: &str| match text.parse::<i64>() {
            Ok(number) if number >= 0 => Ok(number),
            _ => Err(invalid(format!(
                "the {what} \"{}\" is not a number from 0 on",
                short(text)
            ))),
        };
        let offset = number("offset", &offset)?;
        let number = number("partition", &partition)?;
        let large = || {
            invalid(format!(
                "the partition {number} does not exist: write a smaller one"
            ))
        };
        Ok(Self(key, i32::try_from(number).map_err(|_| large())?, offset))
    }
}

/// Query parameters; a wrong one is a problem that names it.
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::bad_request("InvalidQuery", rejection.body_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_names_that_kubernetes_can_have() {
        let longest = ("a".repeat(63), ["b"; 127].join("."));
        for (namespace, name) in [
            ("shop", "orders"),
            ("a-1", "0.b-c.d"),
            (longest.0.as_str(), longest.1.as_str()),
        ] {
            let key = group_key(namespace, name).unwrap();
            assert_eq!((key.namespace.as_str(), key.name.as_str()), (namespace, name));
            assert_eq!(group_of(&format!("{namespace}/{name}")).unwrap(), key);
        }
        let long = ("a".repeat(64), "b".repeat(254));
        for namespace in ["", "Shop", "a.b", "-a", "a-", "a/b", "ä", "a b", "..", &long.0] {
            let why = group_key(namespace, "orders").unwrap_err();
            assert!(why.contains("is not a DNS label") && why.len() < 250, "{why}");
        }
        for name in [
            "", "Orders", "a..b", ".a", "a.", "-a", "a.-b", "a/b", "a?b", &long.1,
        ] {
            let why = group_key("shop", name).unwrap_err();
            assert!(why.contains("is not a DNS subdomain") && why.len() < 250, "{why}");
        }
        assert!(group_of("orders").unwrap_err().contains("NAMESPACE/NAME"));
        assert!(group_of(&"a".repeat(60_000)).unwrap_err().len() < 100);
    }
}

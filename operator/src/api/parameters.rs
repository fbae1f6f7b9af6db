//! Parameters of the path and of the query. In: a request. Out: typed parameters, or a problem that names the
//! wrong one.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::kafka::model::GroupKey;

/// The group that a path names.
pub struct GroupPath(pub GroupKey);

impl<S: Send + Sync> FromRequestParts<S> for GroupPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((namespace, name))) => Ok(Self(GroupKey { namespace, name })),
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

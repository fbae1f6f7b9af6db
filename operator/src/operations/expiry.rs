//! Deletes operations that have ended, ttlSecondsAfterFinished later. In: one that has ended. Out: one deletion.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::controller::apply::error::is_not_found;

/// Deletes an object whose time to live of `ttl` seconds after `ended` is over. Its children are deleted with it.
pub async fn expire<K>(
    api: &Api<K>,
    object: &K,
    ttl: Option<i64>,
    ended: Option<&Time>,
) -> Result<Action, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let Some(left) = time_left(ttl, ended, Timestamp::now()) else {
        return Ok(Action::await_change());
    };
    if !left.is_zero() {
        return Ok(Action::requeue(left));
    }
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match api.delete(&object.name_any(), &parameters).await {
        Ok(_) => Ok(Action::await_change()),
        Err(error) if is_not_found(&error) => Ok(Action::await_change()),
        // Another one has the name now.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Action::await_change()),
        Err(error) => Err(error),
    }
}

/// Time until an operation that has ended is deleted. None: it stays.
fn time_left(ttl: Option<i64>, ended: Option<&Time>, now: Timestamp) -> Option<Duration> {
    let over = ended?.0.as_second().saturating_add(ttl?);
    let left = over.saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_deleted_when_its_time_to_live_is_over() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ended = Time(at(100));
        let left = |ttl, now| time_left(ttl, Some(&ended), at(now)).map(|left| left.as_secs());
        assert_eq!(left(None, 1000), None);
        assert_eq!(left(Some(60), 100), Some(60));
        assert_eq!(left(Some(60), 160), Some(0));
        assert_eq!(left(Some(0), 90), Some(10));
        assert_eq!(
            left(Some(i64::MAX), 200),
            Some(u64::try_from(i64::MAX - 200).unwrap())
        );
        assert_eq!(time_left(Some(60), None, at(200)), None, "it has not ended");
    }
}

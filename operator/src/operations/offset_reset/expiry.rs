//! Deletes resets that have ended, ttlSecondsAfterFinished later. In: a reset that has ended. Out: one deletion.

use std::time::Duration;

use crds::KafkaOffsetReset;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::Action;

use super::{ResetError, stored};
use crate::controller::apply::error::is_not_found;
use crate::controller::scope::Scope;

/// Deletes a reset whose time to live is over.
pub async fn expire(scope: &Scope, reset: &KafkaOffsetReset) -> Result<Action, ResetError> {
    let Some(left) = time_left(reset, Timestamp::now()) else {
        return Ok(Action::await_change());
    };
    if !left.is_zero() {
        return Ok(Action::requeue(left));
    }
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: reset.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match stored::api(scope, reset)
        .delete(&reset.name_any(), &parameters)
        .await
    {
        Ok(_) => Ok(Action::await_change()),
        Err(error) if is_not_found(&error) => Ok(Action::await_change()),
        // Another one has the name now.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Action::await_change()),
        Err(error) => Err(ResetError::Delete(Box::new(error))),
    }
}

/// Time until a reset that has ended is deleted. None: it stays.
fn time_left(reset: &KafkaOffsetReset, now: Timestamp) -> Option<Duration> {
    let ttl = reset.spec.ttl_seconds_after_finished?;
    let ended = reset.status.as_ref()?.completion_time.as_ref()?;
    let over = ended.0.as_second().saturating_add(ttl);
    let left = over.saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use crds::KafkaOffsetResetStatus;
    use crds::offset_reset::ResetPhase;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::fixtures::reset;

    #[test]
    fn a_reset_is_deleted_when_its_time_to_live_is_over() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ended = |ttl: Option<i64>| {
            let mut reset = reset("again", json!({"ttlSecondsAfterFinished": ttl}));
            reset.status = Some(KafkaOffsetResetStatus {
                phase: Some(ResetPhase::Succeeded),
                completion_time: Some(Time(at(100))),
                ..Default::default()
            });
            reset
        };
        let left = |ttl, now| time_left(&ended(ttl), at(now)).map(|left| left.as_secs());
        assert_eq!(left(None, 1000), None);
        assert_eq!(left(Some(60), 100), Some(60));
        assert_eq!(left(Some(60), 160), Some(0));
        assert_eq!(left(Some(0), 90), Some(10));
        assert_eq!(
            left(Some(i64::MAX), 200),
            Some(u64::try_from(i64::MAX - 200).unwrap())
        );
    }
}

//! Leader election by a Lease: of several operators one works, the others wait. In: a client, a name, an identity. Out:
//! the right to work, and the news that it is lost. The holder stops before anybody else may begin, also when clocks
//! differ: only durations are compared, each by the clock of one process.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use thiserror::Error;

/// A lease that was not renewed for so long may be taken. Kubernetes' own components use the same three numbers.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long stops. The 5 s to [`DURATION`] are for requests on their way.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts, to renew or to take.
const RETRY: Duration = Duration::from_secs(2);
/// One request; a hanging one must leave time for others before [`DEADLINE`].
const REQUEST: Duration = Duration::from_secs(3);

/// Why a request about the lease failed.
#[derive(Debug, Error)]
enum LeaseError {
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("no answer within {} s", REQUEST.as_secs())]
    Timeout,
}

/// The lease was lost: somebody else may begin, so this process must end.
#[derive(Debug, Error)]
#[error("the lease {name} was lost: {why}")]
pub struct Lost {
    name: String,
    why: String,
}

/// A candidate, and later the holder.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// What was seen last, and since when: a lease expires by our clock, not by the holder's.
    seen: Option<(Sighting, Instant)>,
}

/// What changes when a holder is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sighting {
    holder: Option<String>,
    renewed: Option<Timestamp>,
}

impl Elector {
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self {
            api,
            name: name.into(),
            identity: identity.into(),
            seen: None,
        }
    }

    /// Waits until this process holds the lease.
    pub async fn acquire(&mut self) {
        loop {
            match bounded(self.try_acquire()).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(lease = self.name, %error, "cannot take the lease; may this ServiceAccount get, create and update leases?");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews for ever; returns when the lease is lost.
    pub async fn hold(&mut self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            let begun = Instant::now();
            match bounded(self.try_acquire()).await {
                // The renewal counts from when it was asked for, as it may have been granted then.
                Ok(true) => renewed = begun,
                Ok(false) => return self.lost("another operator holds it"),
                Err(error) if renewed.elapsed() + RETRY + REQUEST > DEADLINE => {
                    return self.lost(&format!("it could not be renewed in time: {error}"));
                }
                Err(error) => {
                    tracing::warn!(lease = self.name, %error, "cannot renew the lease, trying again")
                }
            }
        }
    }

    /// Gives the lease back, so that the successor need not wait for it to expire.
    pub async fn release(&mut self) {
        let released = bounded(async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok(())
        });
        if let Err(error) = released.await {
            tracing::warn!(%error, "the lease is not given back; a successor waits until it expires");
        }
    }

    fn lost(&self, why: &str) -> Lost {
        Lost {
            name: self.name.clone(),
            why: why.into(),
        }
    }

    /// True if the lease is ours now. Every write names the version it saw, so two candidates cannot both succeed.
    async fn try_acquire(&mut self) -> Result<bool, LeaseError> {
        let now = Timestamp::now();
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            };
            let lease = Lease {
                metadata,
                spec: Some(claimed(None, &self.identity, now)),
            };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let sighting = Sighting {
            holder: spec.holder_identity.clone().filter(|holder| !holder.is_empty()),
            renewed: spec.renew_time.as_ref().map(|time| time.0),
        };
        let since = match &self.seen {
            Some((seen, since)) if *seen == sighting => *since,
            _ => Instant::now(),
        };
        self.seen = Some((sighting.clone(), since));
        if !may_take(
            &sighting,
            &self.identity,
            since.elapsed(),
            spec.lease_duration_seconds,
        ) {
            return Ok(false);
        }
        lease.spec = Some(claimed(Some(&spec), &self.identity, now));
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }
}

async fn bounded<T>(request: impl Future<Output = Result<T, LeaseError>>) -> Result<T, LeaseError> {
    tokio::time::timeout(REQUEST, request)
        .await
        .unwrap_or(Err(LeaseError::Timeout))
}

/// A conflict means that somebody else was faster.
fn won(written: Result<Lease, kube::Error>) -> Result<bool, LeaseError> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn may_take(seen: &Sighting, identity: &str, unchanged: Duration, duration_seconds: Option<i32>) -> bool {
    match seen.holder.as_deref() {
        None => true,
        Some(holder) if holder == identity => true,
        Some(_) => {
            let granted = duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            unchanged > granted.map_or(DURATION, Duration::from_secs)
        }
    }
}

fn claimed(before: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> LeaseSpec {
    let ours = before.is_some_and(|before| before.holder_identity.as_deref() == Some(identity));
    let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.into()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        renew_time: Some(MicroTime(now)),
        acquire_time: match before {
            Some(before) if ours => before.acquire_time.clone(),
            _ => Some(MicroTime(now)),
        },
        lease_transitions: Some(if ours || before.is_none() {
            transitions
        } else {
            transitions + 1
        }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: Option<&str>) -> Sighting {
        Sighting {
            holder: holder.map(String::from),
            renewed: None,
        }
    }

    #[test]
    fn a_lease_is_taken_when_free_ours_or_expired() {
        let seconds = Duration::from_secs;
        for (holder, unchanged, expected) in [
            (None, 0, true),
            (Some("me"), 0, true),
            (Some("other"), 0, false),
            (Some("other"), 15, false),
            (Some("other"), 16, true),
        ] {
            assert_eq!(
                may_take(&seen(holder), "me", seconds(unchanged), Some(15)),
                expected,
                "{holder:?}"
            );
        }
        assert!(may_take(&seen(Some("other")), "me", seconds(2), Some(1)));
    }

    #[test]
    fn a_holder_stops_before_anybody_else_may_begin() {
        // Found out at the latest RETRY + REQUEST after the last moment at which renewing could still be tried.
        assert!(DEADLINE < DURATION);
        assert!(RETRY + REQUEST <= DEADLINE);
    }

    #[test]
    fn renewing_keeps_the_time_of_taking_and_taking_counts_a_transition() {
        let (first, later) = (
            Timestamp::from_second(1).unwrap(),
            Timestamp::from_second(9).unwrap(),
        );
        let taken = claimed(None, "me", first);
        let renewed = claimed(Some(&taken), "me", later);
        assert_eq!(renewed.acquire_time, Some(MicroTime(first)));
        assert_eq!(
            (renewed.renew_time, renewed.lease_transitions),
            (Some(MicroTime(later)), Some(0))
        );
        let stolen = claimed(Some(&taken), "other", later);
        assert_eq!(
            (stolen.acquire_time, stolen.lease_transitions),
            (Some(MicroTime(later)), Some(1))
        );
    }
}

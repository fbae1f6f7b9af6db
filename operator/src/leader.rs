//! Leader election by a Lease: one of several operators is active, the others stand by. In: a client, a name,
//! an identity. Out: leadership, and its loss. The holder stops before another candidate may take the lease,
//! even if clocks differ: only durations are compared, each measured by the clock of one process.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use thiserror::Error;

/// Another candidate may take a lease that was not renewed for this long. The components of Kubernetes use
/// the same three numbers.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long stops. The 5 s up to [`DURATION`] are for requests in flight.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between two attempts to renew or to acquire.
const RETRY: Duration = Duration::from_secs(2);
/// Timeout of one request; a hanging request must leave time for others before [`DEADLINE`].
const REQUEST: Duration = Duration::from_secs(3);

/// Why a request about the lease failed.
#[derive(Debug, Error)]
enum LeaseError {
    #[error("{}", in_words(.0))]
    Kube(#[from] kube::Error),
    #[error("no answer within {} s", REQUEST.as_secs())]
    Timeout,
}

/// The API server's own words, without the rest of its answer.
fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The lease was lost: another candidate may become active, so this process must exit.
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
    /// The last observed state of the lease, and since when: a lease expires by our clock, not by the
    /// holder's.
    seen: Option<(ObservedLease, Instant)>,
}

/// The fields that a live holder changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ObservedLease {
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

    /// Waits until this process holds the lease. Reports after each attempt why this process could not take
    /// the lease over, or None if it could, or holds it.
    pub async fn acquire(&mut self, report: impl Fn(Option<&str>)) {
        loop {
            match bounded(self.try_acquire()).await {
                Ok(true) => return report(None),
                Ok(false) => report(None),
                Err(error) => {
                    let why = format!(
                        "cannot acquire lease {}: {error}; check that the namespace exists and that this ServiceAccount may get, create and update leases in it",
                        self.name
                    );
                    tracing::warn!("{why}; retrying");
                    report(Some(&why));
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews indefinitely; returns when the lease is lost.
    pub async fn hold(&mut self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            let requested = Instant::now();
            match bounded(self.try_acquire()).await {
                // The renewal counts from the time of the request: the API server may have granted it then.
                Ok(true) => renewed = requested,
                Ok(false) => return self.lost("another operator holds it"),
                Err(error) if renewed.elapsed() + RETRY + REQUEST > DEADLINE => {
                    return self.lost(&format!("it could not be renewed in time: {error}"));
                }
                Err(error) => {
                    tracing::warn!(lease = self.name, %error, "cannot renew the lease, retrying")
                }
            }
        }
    }

    /// Releases the lease, so that the next leader need not wait for it to expire.
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
            tracing::warn!(%error, "cannot release the lease; the next leader waits until it expires");
        }
    }

    fn lost(&self, why: &str) -> Lost {
        Lost {
            name: self.name.clone(),
            why: why.into(),
        }
    }

    /// True if this process holds the lease now. Every write carries the resource version that was read, so
    /// two candidates cannot both succeed.
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
        let observed = ObservedLease {
            holder: spec.holder_identity.clone().filter(|holder| !holder.is_empty()),
            renewed: spec.renew_time.as_ref().map(|time| time.0),
        };
        let since = match &self.seen {
            Some((seen, since)) if *seen == observed => *since,
            _ => Instant::now(),
        };
        self.seen = Some((observed.clone(), since));
        if !may_take(
            &observed,
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

/// A conflict means that another candidate was faster.
fn won(written: Result<Lease, kube::Error>) -> Result<bool, LeaseError> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn may_take(
    seen: &ObservedLease,
    identity: &str,
    unchanged: Duration,
    duration_seconds: Option<i32>,
) -> bool {
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

    fn seen(holder: Option<&str>) -> ObservedLease {
        ObservedLease {
            holder: holder.map(String::from),
            renewed: None,
        }
    }

    #[test]
    fn a_lease_is_acquired_when_free_ours_or_expired() {
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
    fn a_holder_stops_before_another_candidate_may_start() {
        // The holder notices at the latest RETRY + REQUEST after the last moment at which it could still try
        // to renew.
        assert!(DEADLINE < DURATION);
        assert!(RETRY + REQUEST <= DEADLINE);
    }

    #[test]
    fn renewing_keeps_the_acquire_time_and_a_takeover_counts_a_transition() {
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

    #[tokio::test]
    async fn a_candidate_that_may_not_read_the_lease_reports_why() {
        let refused = || async {
            let status = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
                "message": "leases is forbidden",
            });
            (axum::http::StatusCode::FORBIDDEN, axum::Json(status))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(refused);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = Client::try_from(kube::Config::new(server.parse().unwrap())).unwrap();
        let (send, mut reports) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut elector = Elector::new(client, "operators", "kco", "me");
            elector
                .acquire(|problem| drop(send.send(problem.map(String::from))))
                .await;
        });
        let why = reports.recv().await.unwrap().unwrap();
        let start = "cannot acquire lease kco: leases is forbidden; check that the namespace exists";
        assert!(why.starts_with(start), "{why}");
    }
}

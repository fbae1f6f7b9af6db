//! The leases of other operators. In: the name of an installation. Out: whether it runs. Compares only times
//! of the own clock, because clocks differ.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use thiserror::Error;

use super::apply::error::in_words;
use crate::sync::lock;

/// Time between two reads of another operator's lease, however many groups it has claimed. Its holder renews
/// it every 2 s.
const REREAD: Duration = Duration::from_secs(5);
/// A lease that was not renewed for this long has ended. Its holder stops 5 s before.
const EXPIRED: Duration = Duration::from_secs(15);
/// The lease could not be read.
#[derive(Debug, Error)]
#[error("cannot read lease {name} of another operator: {}", in_words(source))]
pub struct LeaseError {
    name: String,
    source: Box<kube::Error>,
}

/// The leases of other operators, as they were seen last.
#[derive(Debug, Default)]
pub struct Leases(Mutex<HashMap<String, Arc<LastSeen>>>);

/// Locked while the lease is read: all groups that another operator has claimed wait for one read.
type LastSeen = tokio::sync::Mutex<Option<Seen>>;

/// What was seen of one lease.
#[derive(Clone, Debug)]
struct Seen {
    /// None: there is no such lease, or nobody holds it.
    renewed: Option<String>,
    /// Since when it has looked like this, by the clock of this process.
    since: Instant,
    read: Instant,
}

impl Seen {
    fn new(before: Option<&Self>, renewed: Option<String>, now: Instant) -> Self {
        let same = before.filter(|before| before.renewed == renewed);
        Self {
            since: same.map_or(now, |before| before.since),
            renewed,
            read: now,
        }
    }

    fn is_alive(&self, now: Instant) -> bool {
        self.renewed.is_some() && now.duration_since(self.since) < EXPIRED
    }
}

impl Leases {
    /// Whether the installation that holds the lease `namespace/name` runs. One that may not be read counts
    /// as running.
    pub async fn is_alive(&self, client: &Client, installation: &str) -> Result<bool, LeaseError> {
        let Some((namespace, name)) = installation.split_once('/') else {
            return Ok(false);
        };
        let seen = lock(&self.0).entry(installation.into()).or_default().clone();
        let mut seen = seen.lock().await;
        if let Some(known) = seen.as_ref().filter(|known| known.read.elapsed() < REREAD) {
            return Ok(known.is_alive(Instant::now()));
        }
        let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let renewed = match api.get_opt(name).await {
            Ok(lease) => lease.and_then(|lease| lease.spec).and_then(|spec| {
                let holder = spec.holder_identity.filter(|holder| !holder.is_empty())?;
                Some(format!("{holder} {:?}", spec.renew_time))
            }),
            // Known to be alive, so that it is not read again for every group.
            Err(kube::Error::Api(status)) if status.code == 403 => Some(format!("{:?}", Instant::now())),
            Err(source) => {
                return Err(LeaseError {
                    name: installation.into(),
                    source: Box::new(source),
                });
            }
        };
        let now = Instant::now();
        let read = Seen::new(seen.as_ref(), renewed, now);
        Ok(seen.insert(read).is_alive(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_as_long_as_it_is_renewed_by_the_own_clock() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = Seen::new(None, Some("a 1".into()), start);
        assert!(first.is_alive(at(14)) && !first.is_alive(at(15)));
        let same = Seen::new(Some(&first), Some("a 1".into()), at(10));
        assert!(!same.is_alive(at(15)));
        let renewed = Seen::new(Some(&same), Some("a 2".into()), at(14));
        assert!(renewed.is_alive(at(28)));
        assert!(!Seen::new(Some(&renewed), None, at(15)).is_alive(at(15)));
    }
}

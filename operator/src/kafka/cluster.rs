//! The brokers of one cluster and one connection to each. In: settings, requests. Out: answers of any broker,
//! or of a certain one. Learns the brokers from Metadata and starts again from the bootstrap servers when all
//! of them are gone. Keeps no facts except who coordinates a group.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Mutex as AsyncMutex;

use super::connection::Connection;
use super::frames::CallError;
use super::model::KafkaProblem;
use super::protocol::Request;
use super::protocol::metadata::MetadataAnswer;
use super::settings::{Address, Settings};
use crate::sync::lock;

/// Timeout of a request that brokers answer from memory.
pub(super) const ANSWER: Duration = Duration::from_secs(4);

/// If a broker has not answered after this time, another one is asked, too: one that hangs must not delay
/// what every broker knows.
const HEDGE: Duration = Duration::from_millis(700);

/// After this time all brokers are asked.
const HEDGES: Duration = Duration::from_secs(2);

/// Ids of one topic that are remembered.
const TOPIC_IDS: usize = 8;

/// Waits between two connection attempts to one broker.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// All connections to one cluster with one set of credentials.
pub(super) struct Cluster {
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    brokers: BTreeMap<i32, Address>,
    links: HashMap<Address, Arc<AsyncMutex<Link>>>,
    /// Broker that coordinates a group.
    coordinators: HashMap<String, i32>,
    /// As the brokers report it.
    id: Option<String>,
    /// The last ids of each topic, the newest last.
    topic_ids: HashMap<String, Vec<String>>,
}

/// The connection to one address.
#[derive(Default)]
struct Link {
    open: Option<Connection>,
    /// The failed attempts in a row: their number, the time and the error of the last one.
    failed: Option<(u32, Instant, CallError)>,
}

impl Cluster {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: Mutex::default(),
        }
    }

    /// Takes over the brokers and the cluster id of a Metadata answer, and closes connections to all others.
    pub(super) fn learn(&self, answer: &MetadataAnswer) {
        let mut state = lock(&self.state);
        state.id.clone_from(&answer.cluster_id);
        state.brokers = answer
            .brokers
            .iter()
            .filter_map(|broker| {
                let port = u16::try_from(broker.port).ok()?;
                let host = broker.host.clone();
                Some((broker.id, Address { host, port }))
            })
            .collect();
        let State { brokers, links, .. } = &mut *state;
        let known: BTreeSet<&Address> = brokers.values().collect();
        links.retain(|address, _| known.contains(address));
    }

    /// The id of the cluster, if its brokers report one.
    pub(super) fn id(&self) -> Option<String> {
        lock(&self.state).id.clone()
    }

    /// The id of a topic of which a broker reports `id`. A broker that lags behind the controller may report
    /// the id of a topic that was deleted and created again; ids never return, so one that was followed by
    /// another is outdated.
    pub(super) fn newest_topic_id(&self, topic: &str, id: String) -> String {
        let mut state = lock(&self.state);
        let ids = state.topic_ids.entry(topic.into()).or_default();
        if !ids.contains(&id) {
            ids.push(id);
            if ids.len() > TOPIC_IDS {
                ids.remove(0);
            }
        }
        ids.last().cloned().unwrap_or_default()
    }

    pub(super) fn coordinator(&self, group: &str) -> Option<i32> {
        lock(&self.state).coordinators.get(group).copied()
    }

    pub(super) fn set_coordinator(&self, group: &str, node: i32) {
        lock(&self.state).coordinators.insert(group.into(), node);
    }

    pub(super) fn forget_coordinator(&self, group: &str) {
        lock(&self.state).coordinators.remove(group);
    }

    /// Asks any broker; the first answer counts.
    pub(super) async fn any<R: Request>(&self, request: &R) -> Result<R::Answer, KafkaProblem> {
        let candidates = self.candidates();
        // The last of many brokers must be asked before the caller gives up.
        let hedge = HEDGE.min(HEDGES / u32::try_from(candidates.len()).unwrap_or(1).max(1));
        let mut candidates = candidates.into_iter();
        let mut asked = FuturesUnordered::new();
        let mut failures = Vec::new();
        loop {
            match candidates.next() {
                Some(address) => asked.push(async move {
                    let answer = self.call(&address, request, ANSWER).await;
                    answer.map_err(|error| (address, error))
                }),
                None if asked.is_empty() => return Err(problem(failures)),
                None => {}
            }
            let more = candidates.len() > 0;
            tokio::select! {
                Some(answer) = asked.next() => match answer {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failures.push(failure),
                },
                () = tokio::time::sleep(hedge), if more => {}
            }
        }
    }

    /// Asks one broker by its id.
    pub(super) async fn node<R: Request>(
        &self,
        id: i32,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Answer, CallError> {
        let address = lock(&self.state).brokers.get(&id).cloned();
        let Some(address) = address else {
            return Err(CallError::Unreachable(format!("broker {id} is not running")));
        };
        self.call(&address, request, timeout).await
    }

    /// False: the broker answers, but is too old for the request.
    pub(super) async fn supports<R: Request>(&self, id: i32) -> bool {
        let address = lock(&self.state).brokers.get(&id).cloned();
        let Some(address) = address else {
            return true;
        };
        match self.connection(&address).await {
            Ok((connection, _)) => connection.supports::<R>(),
            Err(_) => true,
        }
    }

    async fn call<R: Request>(
        &self,
        address: &Address,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Answer, CallError> {
        let (connection, reused) = self.connection(address).await?;
        let started = Instant::now();
        let answer = connection.call(request, timeout).await;
        // A broker that restarted has closed the connection that was open before; the new one may answer.
        let stale = reused && matches!(answer, Err(CallError::Unreachable(_))) && started.elapsed() < timeout;
        if !stale {
            return answer;
        }
        let (connection, _) = self.connection(address).await?;
        connection.call(request, timeout).await
    }

    /// The open connection to the address, or a new one. The flag says whether it was open before.
    async fn connection(&self, address: &Address) -> Result<(Connection, bool), CallError> {
        let link = {
            let mut state = lock(&self.state);
            Arc::clone(state.links.entry(address.clone()).or_default())
        };
        // Whoever comes second waits here for the same attempt.
        let mut link = link.lock().await;
        if let Some(open) = link.open.as_ref().filter(|open| open.usable()) {
            return Ok((open.clone(), true));
        }
        link.open = None;
        let attempts = match &link.failed {
            Some((attempts, at, error)) if at.elapsed() < backoff(*attempts) => {
                tracing::trace!(%address, attempts, "waiting before the next connection attempt");
                return Err(error.clone());
            }
            Some((attempts, ..)) => *attempts,
            None => 0,
        };
        match Connection::open(&self.settings, address).await {
            Ok(open) => {
                tracing::debug!(%address, "connected to the broker");
                link.failed = None;
                link.open = Some(open.clone());
                Ok((open, false))
            }
            Err(error) => {
                tracing::debug!(%address, %error, "cannot connect to the broker");
                link.failed = Some((attempts.saturating_add(1), Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// All addresses, those of brokers with a connection first and the bootstrap servers last.
    fn candidates(&self) -> Vec<Address> {
        let state = lock(&self.state);
        let connected = |address: &&Address| {
            state.links.get(*address).is_some_and(|link| {
                let link = link.try_lock();
                link.is_ok_and(|link| link.open.as_ref().is_some_and(Connection::usable))
            })
        };
        let (first, then): (Vec<&Address>, Vec<&Address>) = state.brokers.values().partition(connected);
        let mut addresses: Vec<Address> = Vec::new();
        for address in first.into_iter().chain(then).chain(&self.settings.bootstrap) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }
}

fn backoff(attempts: u32) -> Duration {
    FIRST_BACKOFF
        .saturating_mul(1 << attempts.saturating_sub(1).min(8))
        .min(MAX_BACKOFF)
}

/// What it means that no broker answered. The message stays the same while the brokers fail in the same way,
/// whatever the order of their failures: it appears in conditions.
fn problem(mut failures: Vec<(Address, CallError)>) -> KafkaProblem {
    failures.sort_by(|(left, _), (right, _)| left.cmp(right));
    let login = failures.iter().find_map(|(_, error)| match error {
        CallError::LoginRefused(message) => Some(message.clone()),
        CallError::Unreachable(_) | CallError::Unsupported(_) => None,
    });
    if let Some(message) = login {
        return KafkaProblem::AuthenticationFailed(message);
    }
    let messages: Vec<String> = failures
        .iter()
        .take(SHOWN)
        .map(|(_, error)| error.to_string())
        .collect();
    let more = failures.len().saturating_sub(SHOWN);
    let more = if more == 0 {
        String::new()
    } else {
        format!("; and {more} more")
    };
    KafkaProblem::Unreachable(format!("{}{more}", messages.join("; ")))
}

/// Number of brokers whose errors are shown.
const SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(host: &str, error: CallError) -> (Address, CallError) {
        let address = Address {
            host: host.into(),
            port: 9092,
        };
        (address, error)
    }

    #[test]
    fn the_problem_does_not_depend_on_the_order_of_failures() {
        let refused = |host: &str| failure(host, CallError::Unreachable(format!("{host}:9092: refused")));
        let one = problem(vec![refused("b"), refused("a")]);
        let other = problem(vec![refused("a"), refused("b")]);
        assert_eq!(one, other);
        assert_eq!(
            one,
            KafkaProblem::Unreachable("a:9092: refused; b:9092: refused".into())
        );
        let many = problem("edcba".chars().map(|host| refused(&host.to_string())).collect());
        assert!(many.to_string().contains("c:9092: refused; and 2 more"), "{many}");
    }

    #[test]
    fn a_refused_login_counts_more_than_an_unreachable_broker() {
        let failures = vec![
            failure("a", CallError::Unreachable("a:9092: refused".into())),
            failure("b", CallError::LoginRefused("invalid credentials".into())),
        ];
        assert_eq!(
            problem(failures),
            KafkaProblem::AuthenticationFailed("invalid credentials".into())
        );
    }

    #[test]
    fn backoff_doubles_to_two_seconds() {
        let waits: Vec<u128> = (1..=7).map(|attempts| backoff(attempts).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff(u32::MAX), MAX_BACKOFF);
    }
}

//! Watches a kind that groups do not need. In: its API. Out: events, and whether the cluster was asked. The CRD may
//! not be installed, and the operator may not be allowed to watch it: then there are no such objects, and this looks
//! again every minute. Objects that were listed once stay known through refusals of a few minutes.

mod refusals;

use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use refusals::{Refusals, advice, unavailable};

/// Time between two attempts while the kind does not exist or may not be watched.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(60);
/// Time between two attempts while the known objects stay through refusals.
const REFUSED_RETRY: Duration = Duration::from_secs(5);
/// Other failures pass by themselves.
const RETRY: Duration = Duration::from_secs(2);
/// Whoever needs to know the objects waits for the first list for this long.
const FIRST_LIST: Duration = Duration::from_secs(30);
/// Objects of one page of a list: one with its plan has up to 1.5 MiB.
const PAGE: u32 = 20;

/// A kind, in messages.
pub(super) struct About {
    /// Such as KafkaOffsetResets.
    pub kinds: &'static str,
    /// What to do if the CRD is not installed.
    pub missing: &'static str,
    /// What to do if the operator may not watch it.
    pub forbidden: &'static str,
}

/// Watches until the process ends, and calls `take` with each event. `trim` drops what nobody needs of an object.
pub(super) async fn run<K, T>(
    api: Api<K>,
    about: &'static About,
    known: watch::Sender<bool>,
    trim: fn(&mut K),
    take: T,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    T: FnMut(&watcher::Event<K>) + Send,
{
    let watched = OptionalWatch {
        api,
        about,
        known,
        trim,
        take,
        logged: None,
        refusals: Refusals::default(),
    };
    watched.run().await;
}

struct OptionalWatch<K, T> {
    api: Api<K>,
    about: &'static About,
    known: watch::Sender<bool>,
    trim: fn(&mut K),
    take: T,
    /// What was logged last, so that it is logged once.
    logged: Option<&'static str>,
    refusals: Refusals,
}

impl<K, T> OptionalWatch<K, T>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    T: FnMut(&watcher::Event<K>) + Send,
{
    async fn run(mut self) {
        let kinds = self.about.kinds;
        loop {
            let why = self.until_refused().await;
            if !self.refusals.count(Instant::now()) {
                tracing::warn!("the watch of {kinds} was refused, retrying: {why}");
                tokio::time::sleep(REFUSED_RETRY).await;
                continue;
            }
            (self.take)(&watcher::Event::Init);
            (self.take)(&watcher::Event::InitDone);
            self.known.send_replace(true);
            if self.logged != Some(why) {
                let seconds = UNAVAILABLE_RETRY.as_secs();
                tracing::warn!("{kinds} are not served: {why}; looking again every {seconds} s");
                self.logged = Some(why);
            }
            tokio::time::sleep(UNAVAILABLE_RETRY).await;
        }
    }

    /// Watches until the kind does not exist or may not be watched. Returns what to do about that.
    async fn until_refused(&mut self) -> &'static str {
        // Asked first, because the watcher logs each refusal as a warning.
        let one = ListParams::default().limit(1);
        if let Err(kube::Error::Api(status)) = self.api.list_metadata(&one).await
            && let Some(why) = advice(self.about, status.code)
        {
            return why;
        }
        let kinds = self.about.kinds;
        let config = watcher::Config::default().page_size(PAGE);
        let events = watcher(self.api.clone(), config).modify(self.trim);
        let mut events = std::pin::pin!(events);
        let started = Instant::now();
        loop {
            match events.next().await {
                Some(Ok(event)) => {
                    (self.take)(&event);
                    if matches!(event, watcher::Event::InitDone) {
                        self.refusals.end();
                        self.known.send_replace(true);
                        if self.logged.take().is_some() {
                            tracing::info!("{kinds} are served now");
                        }
                    }
                }
                Some(Err(error)) => {
                    if let Some(why) = unavailable(self.about, &error) {
                        return why;
                    }
                    tracing::warn!(%error, "the watch of {kinds} failed, retrying");
                    if started.elapsed() > FIRST_LIST {
                        self.known.send_replace(true);
                    }
                    tokio::time::sleep(RETRY).await;
                }
                // The watcher never ends; if it did, this starts another one.
                None => return "the watch has ended",
            }
        }
    }
}

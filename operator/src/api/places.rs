//! Where the dead letters of groups are. In: a place of each group, or a way to ask for it, from whoever runs the
//! groups. Out: the same for the API. Credentials never leave this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crds::client_config::KafkaCredentials;
use crds::spec::Kafka;
use futures::future::BoxFuture;

use crate::kafka::model::GroupKey;
use crate::sync::lock;

/// A dead letter topic and how its brokers are reached.
#[derive(Clone)]
pub struct Place {
    pub topic: String,
    pub kafka: Kafka,
    pub credentials: KafkaCredentials,
}

/// Why there is no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The group was deleted.
    NoGroup,
    /// The group has no dead letter topic.
    NoTopic,
    /// What the group references is missing.
    Invalid(String),
    /// It cannot be found out now.
    Unknown(String),
}

/// Finds the place of a group.
pub type Find = Arc<dyn Fn(GroupKey) -> BoxFuture<'static, Result<Place, NoPlace>> + Send + Sync>;

/// The places of groups that are all known; a group without a dead letter topic has None.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<BTreeMap<GroupKey, Option<Place>>>>);

impl Places {
    /// From now on, these.
    pub fn set(&self, places: BTreeMap<GroupKey, Option<Place>>) {
        *lock(&self.0) = places;
    }

    pub fn find(&self) -> Find {
        let places = self.clone();
        Arc::new(move |key| {
            let found = match lock(&places.0).get(&key) {
                None => Err(NoPlace::NoGroup),
                Some(None) => Err(NoPlace::NoTopic),
                Some(Some(place)) => Ok(place.clone()),
            };
            Box::pin(async move { found })
        })
    }
}

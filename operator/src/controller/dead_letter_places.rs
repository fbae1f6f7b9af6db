//! Where the dead letters of a group are, for the API. In: a client, the name of a group. Out: the topic and how its
//! brokers are reached, read now: any operator answers, also one that stands by and has no caches of Secrets.
//! Writes nothing.

use std::collections::BTreeSet;

use crds::KafkaConsumerGroup;
use kube::{Api, Client};

use super::apply::error::in_words;
use super::dereference::read;
use crate::api::places::{NoPlace, Place};
use crate::group::references::{ReferencedData, References};
use crate::kafka::model::GroupKey;

/// Reads the resource, and the Secrets and ConfigMaps that its `spec.kafka` references.
pub async fn find(client: &Client, key: &GroupKey) -> Result<Place, NoPlace> {
    let unknown = |why: String| NoPlace::Unknown(format!("the API server cannot be asked: {why}"));
    let groups: Api<KafkaConsumerGroup> = Api::namespaced(client.clone(), &key.namespace);
    let group = groups.get_opt(&key.name).await;
    let group = group
        .map_err(|error| unknown(in_words(&error)))?
        .ok_or(NoPlace::NoGroup)?;
    let Some(letters) = &group.spec.error_handling.dead_letter else {
        return Err(NoPlace::NoTopic);
    };
    let references = References::of(&group.spec);
    let named: BTreeSet<_> = references
        .of_kafka()
        .map(|reference| (reference.kind, reference.name.clone()))
        .collect();
    let mut data = ReferencedData::new();
    for (kind, name) in named {
        let found = read(client, &key.namespace, kind, &name).await;
        let found = found.map_err(|error| unknown(error.to_string()))?;
        data.insert((kind, name), found.map(|(_, data)| data));
    }
    let credentials = references.credentials(&group.spec, &key.namespace, &data);
    let credentials = credentials.map_err(|rejection| NoPlace::Invalid(rejection.message))?;
    Ok(Place {
        topic: letters.topic.clone(),
        kafka: group.spec.kafka.clone(),
        credentials,
    })
}

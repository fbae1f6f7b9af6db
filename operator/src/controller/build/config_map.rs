//! The ConfigMap of a group: the worker's configuration, and the control document, which may change while
//! workers run. In: a validated group. Out: the object and the hash that causes a rollout. Never contains a
//! secret.

use crds::WorkerConfig;
use crds::names::{CONTROL_KEY, WORKER_CONFIG_KEY};
use crds::spec::DesiredState;
use crds::worker_config::Control;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;

use super::metadata::metadata;
use crate::digest::hash;
use crate::group::validate::ValidatedGroup;

pub fn config_map(group: &ValidatedGroup) -> ConfigMap {
    let config = WorkerConfig::from_spec(
        &group.namespace,
        &group.name,
        &group.spec,
        group.transforms.clone(),
    );
    let control = Control {
        paused: group.spec.desired_state == DesiredState::Paused,
    };
    ConfigMap {
        metadata: metadata(group),
        data: Some(
            [
                (WORKER_CONFIG_KEY.into(), json(&config)),
                (CONTROL_KEY.into(), json(&control)),
            ]
            .into(),
        ),
        ..ConfigMap::default()
    }
}

/// Changes exactly when workers must restart to apply the change; pausing does not change it.
pub fn config_hash(config_map: &ConfigMap) -> String {
    let config = config_map
        .data
        .as_ref()
        .and_then(|data| data.get(WORKER_CONFIG_KEY));
    hash(config.map(String::as_bytes).unwrap_or_default())
}

/// Serializing plain data into memory cannot fail; a worker refuses an empty document.
fn json(document: &impl Serialize) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::validated;

    #[test]
    fn the_worker_config_is_what_the_worker_parses() {
        let data = config_map(&validated()).data.unwrap();
        let config: WorkerConfig = serde_json::from_str(&data[WORKER_CONFIG_KEY]).unwrap();
        assert_eq!(
            (config.group_id.as_str(), config.topics.len()),
            ("shop.orders", 1)
        );
        assert_eq!(
            config.transforms[0].vrl.as_ref().unwrap().source.as_deref(),
            Some(".seen = true")
        );
        assert!(!data[WORKER_CONFIG_KEY].contains("wonder"));
    }

    #[test]
    fn pausing_changes_the_control_document_and_not_the_hash() {
        let mut group = validated();
        let before = config_map(&group);
        group.spec.desired_state = DesiredState::Paused;
        let after = config_map(&group);
        assert_eq!(config_hash(&before), config_hash(&after));
        let control: Control = serde_json::from_str(&after.data.unwrap()[CONTROL_KEY]).unwrap();
        assert!(control.paused);
    }

    #[test]
    fn a_change_of_the_worker_configuration_changes_the_hash() {
        let mut group = validated();
        let before = config_hash(&config_map(&group));
        group.spec.processing.batch.max_records = 7;
        assert_ne!(before, config_hash(&config_map(&group)));
    }
}

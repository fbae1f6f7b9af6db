//! What the workers of a replay get. In: the replay, its validated group, its plan. Out: the group with the writers
//! of the replay only, the configuration of the workers, or why it does not fit into a ConfigMap. Pure.

use crds::replay::ReplayPartition;
use crds::{KafkaReplay, WorkerConfig};

use crate::controller::build::replay::document;
use crate::group::references::References;
use crate::group::rejection::Rejection;
use crate::group::replay;
use crate::group::validate::ValidatedGroup;
use crate::group::validate::configuration::MAX_BYTES;
use crate::operations::too_large;

/// The group as the replay uses it: with its writers only.
pub fn narrowed(replay: &KafkaReplay, valid: &ValidatedGroup) -> Result<ValidatedGroup, Rejection> {
    let mut group = valid.clone();
    group.spec.writers = replay::writers(&replay.spec, &group.spec)?;
    group.references = References::of(&group.spec);
    Ok(group)
}

/// The configuration of the workers. `group` is narrowed to what the replay uses.
pub fn configuration(
    replay: &KafkaReplay,
    group: &ValidatedGroup,
    partitions: &[ReplayPartition],
    workers: i32,
    group_id: &str,
) -> WorkerConfig {
    let transforms = group.transforms.clone();
    let config = WorkerConfig::from_spec(&group.namespace, &group.name, &group.spec, transforms);
    let until = replay::until(partitions, replay.spec.records_per_second, workers);
    replay::bounded(config, group_id, until)
}

/// Refuses a configuration that the API server would refuse after the plan is stored.
pub fn fits_config_map(config: &WorkerConfig) -> Result<(), Rejection> {
    let bytes = document(config).len();
    match bytes <= MAX_BYTES {
        true => Ok(()),
        false => Err(too_large::too_large(
            &format!(
                "the workers' configuration with the plan has {bytes} bytes, and a ConfigMap holds at most {MAX_BYTES}"
            ),
            "replay",
        )),
    }
}

//! Upgrades of the default worker image. In: a group, its Deployment. Out: the image that it runs now, as long
//! as too many other groups roll out. Without this, an upgrade of the operator would restart the workers of all
//! groups at once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crds::names::CONFIG_HASH_ANNOTATION;
use k8s_openapi::api::apps::v1::Deployment;

use super::build::config_map::{config_hash, config_map};
use super::build::deployment::CONTAINER;
use crate::group::validate::ValidatedGroup;
use crate::kafka::model::GroupKey;
use crate::sync::lock;

/// A rollout that takes longer no longer counts: groups that were unhealthy before must not stop the others.
const LONGEST: Duration = Duration::from_secs(600);

/// The groups that roll out the default image.
#[derive(Debug)]
pub struct Rollouts {
    limit: usize,
    running: Mutex<HashMap<GroupKey, Instant>>,
}

impl Rollouts {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            running: Mutex::default(),
        }
    }

    /// Whether this group may roll out now.
    fn admit(&self, key: &GroupKey, now: Instant) -> bool {
        let mut running = lock(&self.running);
        if running.contains_key(key) {
            return true;
        }
        let counted = running
            .values()
            .filter(|since| now.duration_since(**since) < LONGEST);
        let admitted = counted.count() < self.limit;
        if admitted {
            running.insert(key.clone(), now);
        }
        admitted
    }

    /// The group has rolled out, or no longer exists.
    pub fn done(&self, key: &GroupKey) {
        lock(&self.running).remove(key);
    }

    /// Keeps the image that the workers run while other groups roll out, and returns the one that has to wait.
    /// An image of the group's own never waits. Neither does a group whose configuration changes: its pods
    /// restart anyway, and workers of another release may refuse the new configuration.
    pub fn hold(&self, group: &mut ValidatedGroup, deployment: Option<&Deployment>) -> Option<String> {
        let key = GroupKey::new(&group.namespace, &group.name);
        let running = deployment
            .filter(|_| group.spec.worker.image.is_none())
            .and_then(image);
        let Some(running) = running else {
            self.done(&key);
            return None;
        };
        if running == group.image {
            if deployment.is_some_and(has_rolled_out) {
                self.done(&key);
            }
            return None;
        }
        if has_other_configuration(group, deployment) {
            lock(&self.running).entry(key).or_insert_with(Instant::now);
            return None;
        }
        (!self.admit(&key, Instant::now())).then(|| std::mem::replace(&mut group.image, running))
    }
}

/// The image of the workers, if there are any.
fn image(deployment: &Deployment) -> Option<String> {
    let spec = deployment.spec.as_ref().filter(|spec| spec.replicas != Some(0))?;
    let mut containers = spec.template.spec.iter().flat_map(|pod| &pod.containers);
    containers
        .find(|container| container.name == CONTAINER)?
        .image
        .clone()
}

fn has_other_configuration(group: &ValidatedGroup, deployment: Option<&Deployment>) -> bool {
    let running = deployment.and_then(|deployment| {
        let metadata = deployment.spec.as_ref()?.template.metadata.as_ref()?;
        metadata.annotations.as_ref()?.get(CONFIG_HASH_ANNOTATION)
    });
    running.is_none_or(|running| *running != config_hash(&config_map(group)))
}

fn has_rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let Some(status) = &deployment.status else {
        return false;
    };
    status.observed_generation >= deployment.metadata.generation
        && [status.replicas, status.updated_replicas, status.ready_replicas]
            .iter()
            .all(|number| *number == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::validated;

    /// The Deployment of the group `name`, with its configuration.
    fn deployment_of(name: &str, image: &str, ready: i32) -> Deployment {
        let hash = config_hash(&config_map(&named(name)));
        serde_json::from_value(serde_json::json!({
            "metadata": {"generation": 3},
            "spec": {"replicas": 2, "selector": {}, "template": {
                "metadata": {"annotations": {CONFIG_HASH_ANNOTATION: hash}},
                "spec": {"containers": [{"name": "other", "image": "x"}, {"name": CONTAINER, "image": image}]},
            }},
            "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": ready},
        }))
        .unwrap()
    }

    fn named(name: &str) -> ValidatedGroup {
        ValidatedGroup {
            name: name.into(),
            image: "worker:2".into(),
            ..validated()
        }
    }

    #[test]
    fn so_many_groups_change_their_image_at_once() {
        let rollouts = Rollouts::new(2);
        let held = |name: &str| {
            let mut group = named(name);
            let waits = rollouts.hold(&mut group, Some(&deployment_of(name, "worker:1", 2)));
            (group.image, waits.is_some())
        };
        assert_eq!(held("a"), ("worker:2".into(), false));
        assert_eq!(held("b"), ("worker:2".into(), false));
        assert_eq!(held("c"), ("worker:1".into(), true));
        assert_eq!(held("a"), ("worker:2".into(), false), "it was admitted");
        // Not before all of its workers are ready.
        rollouts.hold(&mut named("a"), Some(&deployment_of("a", "worker:2", 1)));
        assert!(held("c").1);
        rollouts.hold(&mut named("a"), Some(&deployment_of("a", "worker:2", 2)));
        assert_eq!(held("c"), ("worker:2".into(), false));
        assert!(held("d").1);
        rollouts.done(&GroupKey::new(&named("b").namespace, "b"));
        assert!(!held("d").1);
    }

    #[test]
    fn a_pinned_image_a_new_group_and_a_stopped_one_never_wait() {
        let rollouts = Rollouts::new(0);
        let mut pinned = named("a");
        pinned.spec.worker.image = Some("worker:2".into());
        assert_eq!(
            rollouts.hold(&mut pinned, Some(&deployment_of("a", "worker:1", 2))),
            None
        );
        assert_eq!(rollouts.hold(&mut named("b"), None), None);
        let mut stopped = deployment_of("c", "worker:1", 2);
        stopped.spec.as_mut().unwrap().replicas = Some(0);
        assert_eq!(rollouts.hold(&mut named("c"), Some(&stopped)), None);
    }

    #[test]
    fn a_changed_configuration_is_never_combined_with_the_image_of_another_release() {
        let rollouts = Rollouts::new(0);
        let old = deployment_of("a", "worker:1", 2);
        let mut changed = named("a");
        changed.spec.processing.concurrency = Some(9);
        assert_eq!(rollouts.hold(&mut changed, Some(&old)), None);
        assert_eq!(changed.image, "worker:2");
        // It counts, so that others wait for it.
        assert!(
            rollouts
                .hold(&mut named("b"), Some(&deployment_of("b", "worker:1", 2)))
                .is_some()
        );
    }

    #[test]
    fn a_rollout_that_never_ends_no_longer_counts() {
        let (rollouts, now) = (Rollouts::new(1), Instant::now());
        let key = |name| GroupKey::new("shop", name);
        assert!(rollouts.admit(&key("a"), now));
        assert!(!rollouts.admit(&key("b"), now + Duration::from_secs(599)));
        assert!(rollouts.admit(&key("b"), now + LONGEST));
    }
}

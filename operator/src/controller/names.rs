//! Names, labels and annotations of child objects. In: the name of a group. Out: names that Kubernetes
//! accepts, whatever the length of the group name. Pure.

use std::collections::BTreeMap;

use crds::names::{GROUP_LABEL, OPERATOR_MANAGER, WORKER_APP};

use crate::digest::hash;

/// Annotation on every child: hash of the last applied object. It is part of the applied object, so a live
/// object with all desired fields and this value has no leftovers of an earlier version either.
pub const APPLIED_HASH_ANNOTATION: &str = "kafka-consumer.dev/applied-hash";
/// Annotation on the Deployment: the number that the operator has written into spec.replicas of the group.
pub const MIRRORED_REPLICAS_ANNOTATION: &str = "kafka-consumer.dev/mirrored-replicas";
/// Annotation on the Deployment: the topics whose start positions are committed, or need no commit. They must
/// never be committed again, because partitions that are added later start at their first record.
pub const STARTED_TOPICS_ANNOTATION: &str = "kafka-consumer.dev/started-topics";

/// Pods get the Deployment's name plus up to 17 characters (`-<template hash>-<suffix>`), and their names are
/// label values and host names of at most 63.
const MAX_CHILD_NAME: usize = 46;
/// Kubernetes' limit for label values.
const MAX_LABEL: usize = 63;

/// The common name of all children of a group.
pub fn child_name(group: &str) -> String {
    shorten(&format!("{group}-worker"), MAX_CHILD_NAME)
}

/// The value of [`GROUP_LABEL`] for a group.
pub fn group_label(group: &str) -> String {
    shorten(group, MAX_LABEL)
}

/// The name of the ConfigMap and the Job of a KafkaReplay. Children of groups end differently.
pub fn replay_name(replay: &str) -> String {
    shorten(&format!("{replay}-replay"), MAX_CHILD_NAME)
}

/// The value of [`crds::names::REPLAY_LABEL`] for a KafkaReplay.
pub fn replay_label(replay: &str) -> String {
    shorten(replay, MAX_LABEL)
}

/// The selector of the worker pods of a group. It must never change: the selector of a Deployment is
/// immutable.
pub fn selector(group: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", WORKER_APP.to_string()),
        (GROUP_LABEL, group_label(group)),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into()
}

/// [`selector`] as text, for `status.selector`.
pub fn selector_text(group: &str) -> String {
    let pairs: Vec<_> = selector(group)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

/// Labels of every child.
pub fn labels(group: &str) -> BTreeMap<String, String> {
    let mut labels = selector(group);
    labels.insert("app.kubernetes.io/instance".into(), group_label(group));
    labels.insert("app.kubernetes.io/managed-by".into(), OPERATOR_MANAGER.into());
    labels
}

/// A volume name for a referenced object: readable where possible, always a DNS label.
pub fn volume_name(prefix: &str, name: &str) -> String {
    let dns = !name.contains('.');
    let readable = format!("{prefix}-{name}");
    if dns {
        shorten(&readable, MAX_LABEL)
    } else {
        format!("{prefix}-{}", hash(name.as_bytes()))
    }
}

/// Shortens a name that is too long and keeps it unique with a hash of the whole name.
fn shorten(name: &str, longest: usize) -> String {
    if name.len() <= longest {
        return name.to_string();
    }
    let suffix = &hash(name.as_bytes())[..8];
    let kept: String = name.chars().take(longest - 9).collect();
    format!("{}-{suffix}", kept.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay_readable() {
        assert_eq!(child_name("orders"), "orders-worker");
        assert_eq!(
            selector_text("orders"),
            "app.kubernetes.io/name=kafka-consumer-worker,kafka-consumer.dev/group=orders"
        );
    }

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let (one, two) = ("a".repeat(200) + "-one", "a".repeat(200) + "-two");
        assert!(child_name(&one).len() <= MAX_CHILD_NAME);
        assert!(group_label(&one).len() <= MAX_LABEL);
        assert_ne!(child_name(&one), child_name(&two));
        assert_ne!(group_label(&one), group_label(&two));
        let dots = format!("{}.{}", "a".repeat(36), "b".repeat(40));
        assert!(!child_name(&dots).contains(".-"), "{}", child_name(&dots));
    }

    #[test]
    fn volume_names_are_dns_labels() {
        assert_eq!(volume_name("secret", "kafka-ca"), "secret-kafka-ca");
        assert!(!volume_name("secret", "kafka.example.com").contains('.'));
        assert!(volume_name("secret", &"x".repeat(253)).len() <= 63);
    }
}

//! What to do about a reason. In: a reason of a condition, of a paused partition, or of a reset. Out: advice, as
//! docs/status.md and docs/offset-reset.md give it. Pure. Messages of conditions say more: they name the object.

/// What follows from a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing is wrong.
    Fine,
    /// This is to be done.
    Do(&'static str),
    /// This version of the plugin does not know the reason.
    Unknown,
}

/// The advice for a reason.
pub fn advice(reason: &str) -> Advice {
    let known = REASONS.iter().find(|(known, _)| *known == reason);
    match known {
        Some((_, "")) => Advice::Fine,
        Some((_, text)) => Advice::Do(text),
        None => Advice::Unknown,
    }
}

/// What to do, if something is.
pub fn text(reason: &str) -> Option<&'static str> {
    match advice(reason) {
        Advice::Do(text) => Some(text),
        Advice::Fine => None,
        Advice::Unknown => {
            Some("read the message; docs/status.md of the operator's version lists its reasons")
        }
    }
}

/// All reasons. Without text: nothing is to be done.
#[rustfmt::skip]
pub const REASONS: &[(&str, &str)] = &[
    // As requested, or fine.
    ("AllPartitionsConsumed", ""), ("Paused", ""), ("Rebalancing", ""), ("Stopped", ""), ("Accepted", ""),
    ("BrokersAnswer", ""), ("LagRead", ""), ("AllWorkersReady", ""), ("Consuming", ""), ("NotLimited", ""),
    ("MinReplicas", ""), ("UpToDate", ""), ("NotStalled", ""), ("Stalled", ""), ("OldestUnfinished", ""),
    // In progress.
    ("Stopping", "wait: the workers finish their work in flight"),
    ("OffsetReset", "wait; to cancel it, delete the KafkaOffsetReset that the message names"),
    ("WaitingForDeletion", "wait until the children of the deleted group are gone"),
    ("Joining", "wait: pods start and workers join"),
    ("Progressing", "wait: pods start or stop"),
    ("NotCreated", "wait: the Deployment is created once the spec is accepted"),
    ("WaitingForKafka", "wait for the brokers; see the condition KafkaReachable"),
    ("WaitingForRollout", "wait: other groups roll out the new image first"),
    ("TransformNotCompiled", "wait; if the condition is Unknown, fix what the message says, such as the operator's memory limit"),
    ("NotReported", "check that the operator runs: kubectl get pods -A -l app.kubernetes.io/name=kafka-consumer-operator"),
    // Replays.
    ("Planned", ""), ("ReplayStarted", ""), ("Replayed", ""),
    ("WriterNotInGroup", "correct writers; the message has the writers of the group"),
    ("OffsetMissing", "list the partition in from.offsets and to.offsets, or in neither"),
    ("RangeReversed", "correct the offsets: from must not be larger than to"),
    ("PlanOutdated", "create the replay again: a topic of its plan was deleted or created again"),
    ("WorkersFailed", "read the logs of its pods: kubectl logs -l kafka-consumer.dev/replay=NAME; correct the group, and create the replay again"),
    ("JobRefused", "fix what the message says: permissions of the operator, quotas, admission"),
    ("JobInvalid", "correct spec.worker of the group, and create the replay again"),
    // Ready.
    ("PartitionsNotOwned", "wait; if it persists, read the logs of the workers: kubectl kcg logs GROUP"),
    ("GroupUnknown", "wait; if it persists, check the brokers, above all the coordinator of the consumer group"),
    ("ReadFailed", "fix what the message says: permissions of the operator"),
    ("ApplyFailed", "fix what the message says: permissions of the operator, quotas, admission"),
    ("ChildContested", "stop the client that the message names from writing the child; an HPA must target the KafkaConsumerGroup in mode Manual"),
    ("NameConflict", "delete the object that the message names, or rename the group"),
    ("ProvisionRefused", "correct provision of the topic, or create the topic yourself"),
    // Accepted.
    ("ReplicasIgnored", "set scaling.mode: Manual, or remove spec.replicas"),
    ("CredentialsInClear", "set spec.kafka.tls"),
    ("ValuesNotDecoded", "set spec.decode: {value: {type: Json}}"),
    ("DeadLetterTopicMissing", "create the dead letter topic, or set errorHandling.deadLetter.provision"),
    ("WriterTopicMissing", "create the topic of the writer"),
    ("SecretMissing", "create the Secret or its key, as the message says"),
    ("ConfigMapMissing", "create the ConfigMap or its key, as the message says"),
    ("SecretInvalid", "correct the Secret that the message names"),
    ("ConfigMapInvalid", "correct the ConfigMap that the message names"),
    ("TransformInvalid", "correct the program; the message has the error of the compiler"),
    ("InvalidWorkerSettings", "correct the field of spec.worker that the message names"),
    ("ConfigurationTooLong", "shorten the programs that the message names"),
    ("HeaderRepeated", "use each header of the Http writer once"),
    ("TopicMissing", "create the topic, or set its provision"),
    ("InvalidSpec", "edit the field that the message names: kubectl edit kcg GROUP"),
    // KafkaReachable, LagKnown.
    ("ClusterChanged", "if it is not meant, check DNS, port forwarding and load balancers in front of the brokers"),
    ("KafkaUnreachable", "fix the cause in the message; otherwise check addresses, TLS, network policies and brokers"),
    ("AuthenticationFailed", "correct the Secret with the login, or sasl.mechanism"),
    ("AuthorizationFailed", "grant the missing permission in Kafka; docs/security.md lists all"),
    ("InvalidClientConfig", "correct clientConfig, the certificates or the keys"),
    ("NotAsked", "see the condition Accepted: Kafka is asked once the spec is accepted"),
    ("LagUnknown", "see the message, and the conditions Accepted and KafkaReachable"),
    ("KafkaNotRead", "see the condition KafkaReachable"),
    // WorkersAvailable.
    ("NoWorkers", "see the message: it says why no workers are wanted yet"),
    ("PodCreationFailed", "check quotas and admission, as the message says"),
    ("Unschedulable", "check resources, nodeSelector, tolerations and volumes of spec.worker against the nodes"),
    ("ImagePullFailed", "correct worker.image or worker.imagePullSecrets"),
    ("RegistryUnavailable", "correct worker.image or worker.imagePullSecrets, or wait for the registry"),
    ("ContainerNotStarted", "fix the volume, Secret or setting in the message"),
    ("InjectedContainerFailing", "fix the component that injects the container, or exclude the pods with worker.labels or worker.annotations"),
    ("DeploymentPaused", "run the kubectl rollout resume of the message"),
    ("GroupRefusesWorkers", "stop the members that the message names, or create a group with another groupId"),
    ("CrashLooping", "read the exit code in the message (docs/exit-codes.md) and the log: kubectl kcg logs GROUP --previous"),
    // Consuming and paused partitions.
    ("GroupShared", "give each group or application a groupId that no other uses, or stop the others"),
    ("NoWorkerReady", "see the condition WorkersAvailable"),
    ("PartitionsStalled", "read the logs of the workers (kubectl kcg logs GROUP); docs/errors-and-dead-letters.md explains stalled partitions"),
    ("NoProgress", "read the log of the worker (kubectl kcg logs GROUP); docs/errors-and-dead-letters.md explains stalled partitions"),
    ("TopicRecreated", "set consumer.onTopicRecreated: Restart, or set the offsets: kubectl kcg reset GROUP --to-earliest --topic TOPIC --stop-group"),
    ("OffsetOutOfRange", "set consumer.onOffsetOutOfRange to Earliest or Latest, or set the offset: kubectl kcg reset GROUP"),
    ("RecordFailed", "fix the cause in the error: the transform, the table; the worker retries the record by itself"),
    ("DeadLetterBreakerOpen", "fix the cause of the failures; raise the limits of the breaker if the failures are legitimate"),
    ("DeadLetterUnavailable", "create the dead letter topic, or grant Write on it; it recovers automatically"),
    ("WriterUnavailable", "fix the cause in the error, such as the target system, its login or its table; it recovers automatically"),
    ("TransformSlow", "check the transform; after errorHandling.transformTimeoutSeconds the record fails"),
    // ScalingLimited.
    ("Partitions", "more workers would be idle: add partitions, or lower partitionsPerWorker"),
    ("MaxReplicas", "raise scaling.maxReplicas or scaling.partitionsPerWorker"),
    ("Unknown", "see the condition KafkaReachable: the partitions are not known"),
    ("NotDecided", "see the condition Accepted: the number of workers is decided once the spec is accepted"),
    // Resets.
    ("Complete", ""), ("DryRun", ""), ("Resetting", ""),
    ("WaitingForGroup", "wait: the group does not exist yet, or its spec is being checked"),
    ("WaitingForReset", "wait for the earlier reset that the message names, or delete it"),
    ("WaitingForMembers", "wait until the workers have left the consumer group"),
    ("TransactionOpen", "wait until the open transaction ends: at the latest after the transaction timeout of its producer"),
    ("GroupNotStopped", "add --stop-group (stopGroup: true), or stop the group first: kubectl kcg stop GROUP"),
    ("GroupNotFound", "correct the name of the group"),
    ("GroupNotAccepted", "correct the spec of the group first, see its condition Accepted"),
    ("GroupUnreadable", "correct the stored group, which does not fit its schema"),
    ("GroupChanged", "create the reset again, if it is still wanted; the message and status.plannedFor say what it was for"),
    ("GroupNotEmpty", "stop the other members that the message names"),
    ("TopicNotInGroup", "correct --topic or --to-offset; the message names the topics of the group"),
    ("PartitionMissing", "correct --topic or --to-offset: the topic has no such partition"),
    ("PartitionNotSelected", "select the partition with --topic, or remove its offset"),
    ("NothingCommitted", "use another target than --shift-by: no partition has a committed offset"),
    ("TooManyPartitions", "reset some topics at a time with --topic"),
    ("PlanTooLarge", "reset some topics at a time with --topic"),
    ("DuplicateOffset", "give each partition one offset"),
    ("OffsetsInDatabase", "docs/delivery.md describes how to write records again with ExactlyOnce and PostgreSQL"),
    ("PartlyCommitted", "create another reset for the partitions that the message names"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use regex::Regex;

    use super::*;

    fn known() -> BTreeSet<&'static str> {
        REASONS.iter().map(|(reason, _)| *reason).collect()
    }

    #[test]
    fn every_reason_of_the_documentation_has_advice_or_is_deliberately_without() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let code = Regex::new("`([A-Z][A-Za-z]+)`").unwrap();
        let mut missing = Vec::new();
        for (page, from, to, column) in [
            ("status.md", "| reason of `Ready`", "### Reasons of the other", 1),
            ("status.md", "### Reasons of the other", "## Workers", 2),
            ("status.md", "### `pausedReason`", "## Events", 1),
            ("offset-reset.md", "## Reasons of a failure", "## Groups with", 1),
        ] {
            let text = std::fs::read_to_string(docs.join(page)).unwrap();
            let (_, text) = text.split_once(from).unwrap();
            let (text, _) = text.split_once(to).unwrap();
            let cells = text.lines().filter_map(|line| line.split('|').nth(column));
            let cells: Vec<&str> = cells.collect();
            let reasons = cells.iter().flat_map(|cell| code.captures_iter(cell));
            let reasons: Vec<String> = reasons.map(|found| found[1].to_string()).collect();
            assert!(reasons.len() > 8, "{page}: the table {from:?} was not found");
            let is_condition = |word: &str| CONDITIONS.contains(&word);
            let unknown = reasons
                .into_iter()
                .filter(|reason| !known().contains(&**reason) && !is_condition(reason));
            missing.extend(unknown);
        }
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// Cells also name conditions.
    const CONDITIONS: &[&str] = &["WorkersAvailable", "KafkaReachable", "Ready", "Reconciling"];

    /// Words in quotes of the files that make conditions, which are no reasons.
    #[rustfmt::skip]
    const OTHER_WORDS: &[&str] = &[
        "CommittingStart", "Job", "Run",
        // Types of conditions, status values, states of groups, phases and reasons of pods.
        "Ready", "KafkaReachable", "WorkersAvailable", "False", "True", "Stable", "Empty", "Failed", "Pending",
        "Running", "Succeeded", "PreparingRebalance", "CompletingRebalance", "ContainerCreating", "Completed",
        "ContainerStatusUnknown", "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError",
        "ErrImageNeverPull", "ErrImagePull", "Error", "Evicted", "ImageInspectError", "ImagePullBackOff",
        "InvalidImageName", "RunContainerError", "PodScheduled", "ReplicaFailure", "Starting", "Waiting", "Unheard",
        // Kinds, values of fields, words of the API server.
        "ConfigMap", "Secret", "Deployment", "KafkaConsumerGroup", "Kafka", "Memory", "Failure", "Invalid",
        "FieldValueInvalid", "Status", "Gone", "None", "Earliest", "Latest", "Offsets", "Shift", "Timestamp",
        "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
        // Events.
        "DeadWorkerRemoved", "DeadWorkerNotRemoved", "KafkaClusterChanged", "RecordsSkippedByRetention", "Resumed",
        "Scaled", "ServedByAnotherOperator", "StartPositionNotCommitted", "Started", "TopicCreated", "TopicGrown",
        "WorkersNotReadable", "ChildRestored", "OffsetsReset",
    ];

    #[test]
    fn every_reason_of_the_source_has_advice_or_is_deliberately_without() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let word = Regex::new(r#""([A-Z][a-z]+(?:[A-Z][a-z]+)*)""#).unwrap();
        let mut files = Vec::new();
        for place in [
            "controller/update_status",
            "controller/update_status.rs",
            "controller/pods.rs",
            "controller/apply/error.rs",
            "controller/dead_workers.rs",
            "controller/outcome.rs",
            "group",
            "kafka/model.rs",
            "kafka/provision.rs",
            "kafka/properties.rs",
            "kafka/settings.rs",
            "operations",
        ] {
            collect(&source.join(place), &mut files);
        }
        assert!(files.len() > 20, "{files:?}");
        let mut missing = BTreeSet::new();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            // Tests are at the end of a file.
            let text = text.split("#[cfg(test)]").next().unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                let words = word.captures_iter(line).map(|found| found[1].to_string());
                missing.extend(
                    words.filter(|word| !known().contains(&**word) && !OTHER_WORDS.contains(&&**word)),
                );
            }
        }
        assert!(
            missing.is_empty(),
            "add advice, or the word to OTHER_WORDS: {missing:?}"
        );
    }

    fn collect(path: &Path, files: &mut Vec<std::path::PathBuf>) {
        if path.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                collect(&entry.unwrap().path(), files);
            }
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            files.push(path.into());
        }
    }

    #[test]
    fn the_reasons_of_paused_partitions_are_known_and_no_reason_is_listed_twice() {
        for reason in crds::status::PausedReason::ALL {
            assert_ne!(advice(reason.as_str()), Advice::Unknown, "{reason:?}");
        }
        assert_eq!(known().len(), REASONS.len());
        assert_eq!(advice("AllWorkersReady"), Advice::Fine);
        assert_eq!(text("AllWorkersReady"), None);
        assert!(text("FromTheFuture").unwrap().contains("docs/status.md"));
    }
}

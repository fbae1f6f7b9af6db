//! The commands against an API server of this process, and the screens as text.
#![allow(clippy::unwrap_used, reason = "the helpers of these tests")]

mod commands;
mod fake;
mod resets;
mod screens;

use std::io;
use std::sync::{Arc, Mutex};

use clap::{CommandFactory, Parser};
use serde_json::{Value, json};

use self::fake::Fake;
use super::args::Args;
use super::cluster::Cluster;
use super::error::Error;
use super::terminal::Terminal;
use crate::sync::lock;

/// Text that a test can read while the terminal has it.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(lock(&self.0).clone()).unwrap()
    }
}

/// What a command did.
struct Done {
    code: Result<u8, String>,
    out: String,
    notes: String,
}

/// Runs a command line against a fake API server, as `main` does.
async fn kcg(fake: &Arc<Fake>, line: &str, answer: Option<&'static str>) -> Done {
    let args = Args::try_parse_from(["kubectl-kcg"].into_iter().chain(line.split_whitespace())).unwrap();
    let mut cluster = Cluster::at(fake.address);
    if let Some(namespace) = args.target.namespace {
        cluster.namespace = namespace;
    }
    let (out, notes) = (Buffer::default(), Buffer::default());
    let mut terminal = Terminal::buffers(Box::new(out.clone()), Box::new(notes.clone()), answer);
    let code = super::command(&cluster, args.command, &mut terminal).await;
    Done {
        code: code.map_err(|error: Error| error.to_string()),
        out: out.text(),
        notes: notes.text(),
    }
}

/// A condition that is one minute old at [`screens::NOW`].
fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T11:59:00Z",
    })
}

/// A group that is well.
fn group(name: &str) -> Value {
    json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1",
        "kind": "KafkaConsumerGroup",
        "metadata": {
            "name": name, "namespace": "shop", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"desiredState": "Running", "topics": [{"name": "orders"}]},
        "status": {
            "observedGeneration": 2,
            "groupId": format!("shop.{name}"),
            "clusterId": "abc",
            "groupState": "Stable",
            "operator": "kco/kafka-consumer-operator",
            "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2,
            "topics": [{"name": "orders", "partitions": 3}],
            "partitions": {"total": 3, "assigned": 3, "stalled": 0},
            "lag": {"total": 1234, "max": 1000, "maxPartition": "orders-1", "asOf": "2026-01-01T11:59:50Z"},
            "workerTotals": {
                "reporting": 2, "silent": 0, "recordsTotal": 5000, "deadLetteredTotal": 0, "skippedTotal": 0,
                "inFlight": 10,
            },
            "conditions": [
                condition("Ready", "True", "AllPartitionsConsumed", "all 3 partitions are being consumed"),
                condition("Accepted", "True", "Accepted", "the spec is valid"),
                condition("KafkaReachable", "True", "BrokersAnswer", "the brokers answer"),
                condition("LagKnown", "True", "LagRead", "read"),
                condition("WorkersAvailable", "True", "AllWorkersReady", "2 of 2 workers are ready"),
                condition("Consuming", "True", "Consuming", "all 3 partitions are being consumed"),
                condition("ScalingLimited", "False", "NotLimited", "2 workers are wanted"),
                condition("Reconciling", "False", "UpToDate", "up to date"),
                condition("Stalled", "False", "NotStalled", "nothing needs action"),
            ],
        },
    })
}

/// A group whose database refuses the login.
fn failing() -> Value {
    let mut group = group("payments");
    let message = "worker payments-worker-a: writer pg: password authentication failed for user \"kcg\"";
    let conditions = group["status"]["conditions"].as_array_mut().unwrap();
    conditions[0] = condition("Ready", "False", "WriterUnavailable", message);
    conditions[1] = condition("Accepted", "True", "CredentialsInClear", "SASL without TLS");
    conditions[3] = condition(
        "LagKnown",
        "False",
        "LagUnknown",
        "partition orders-2 has no leader",
    );
    conditions[5] = condition("Consuming", "False", "WriterUnavailable", message);
    group["status"]["lag"] = Value::Null;
    group["status"]["partitions"]["stalled"] = 2.into();
    group["status"]["stalledPartitions"] = json!([{
        "topic": "orders", "partition": 1, "offset": 42, "since": "2026-01-01T11:50:00Z", "attempts": 7,
        "reason": "WriterUnavailable", "lastError": "writer pg: password authentication failed",
    }]);
    group["status"]["workers"] = json!([
        {"name": "payments-worker-a", "assigned": 2, "recordsTotal": 10, "deadLetteredTotal": 0, "inFlight": 5,
         "pausedReason": "WriterUnavailable", "stalled": 2, "lastError": "password authentication failed"},
        {"name": "payments-worker-b", "assigned": 1, "recordsTotal": 10, "deadLetteredTotal": 0, "inFlight": 0},
    ]);
    group
}

#[test]
fn the_command_line_is_consistent_and_its_help_describes_the_command() {
    Args::command().debug_assert();
    let mut command = Args::command();
    let about = command.get_about().unwrap().to_string();
    assert_eq!(about, "Shows and changes KafkaConsumerGroups");
    let reset = command.find_subcommand_mut("reset").unwrap();
    let about = reset.get_about().unwrap().to_string();
    assert!(about.starts_with("Set the committed offsets"), "{about}");
    let help = reset.render_long_help().to_string();
    for flag in [
        "--to-earliest",
        "--shift-by",
        "--topic",
        "--stop-group",
        "--dry-run",
        "--yes",
    ] {
        assert!(help.contains(flag), "{flag}: {help}");
    }
}

#[test]
fn wrong_arguments_are_refused_before_the_cluster_is_asked() {
    for line in [
        "status orders -A",
        "status -A -n shop",
        "status -o xml",
        "pause",
        "pause orders --timeout soon",
        "scale orders",
        "scale orders --replicas -1",
        "reset orders",
        "reset orders --to-earliest --to-latest",
        "reset orders --to-earliest --yes --dry-run",
        "logs orders -f --previous",
        "top --interval 0s",
    ] {
        let parsed = Args::try_parse_from(["kubectl-kcg"].into_iter().chain(line.split_whitespace()));
        assert!(parsed.is_err(), "{line}");
    }
    for line in [
        "pause a b --wait=false --timeout 90s",
        "pause a --wait",
        "reset a --shift-by -5 -n shop",
    ] {
        let parsed = Args::try_parse_from(["kubectl-kcg"].into_iter().chain(line.split_whitespace()));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

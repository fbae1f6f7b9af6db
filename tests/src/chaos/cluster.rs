//! Faults of a cluster of three brokers. In: a fault and the script that performs it. Out: the cluster is whole
//! again: every replica is in sync.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};

use super::plan::{BROKERS, ClusterFault};
use crate::systems::{command, kafka::Kafka};

/// Performs the fault, and returns when it is over. `script` is a program with the commands of
/// [`Site::brokers`](super::Site::brokers).
pub(super) async fn perform(
    script: &Path,
    kafka: &Kafka,
    (fault, broker, time): (ClusterFault, usize, Duration),
) -> Result<()> {
    let next = broker % BROKERS + 1;
    let (begin, end, brokers) = match fault {
        ClusterFault::Rolling => ("stop", Some("start"), vec![broker]),
        ClusterFault::Kill => ("kill", Some("start"), vec![broker]),
        ClusterFault::Freeze => ("freeze", Some("thaw"), vec![broker]),
        ClusterFault::Isolate => ("isolate", Some("join"), vec![broker]),
        ClusterFault::Minority => ("kill", Some("start"), vec![broker, next]),
        ClusterFault::MoveLeaders => ("move-leaders", None, vec![broker]),
        ClusterFault::MoveCoordinators => ("move-coordinators", None, vec![broker]),
    };
    run(script, begin, &brokers).await?;
    tokio::time::sleep(time).await;
    if let Some(end) = end {
        run(script, end, &brokers).await?;
    }
    kafka.until_in_sync().await
}

async fn run(script: &Path, command: &str, brokers: &[usize]) -> Result<()> {
    let numbers: Vec<String> = brokers.iter().map(usize::to_string).collect();
    let mut arguments = vec![command];
    arguments.extend(numbers.iter().map(String::as_str));
    let done = command::run(script, &arguments, None).await?.ok(command);
    done.map(drop)
        .with_context(|| format!("{command} of broker {}", numbers.join(" and ")))
}

//! `local reset`: sets the committed offsets of a group once, as a KafkaOffsetReset does in a cluster. In:
//! arguments. Out: the plan as a table and, with `--execute`, committed offsets. Stops no worker: a group with
//! members is refused, with their names.

pub mod args;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail};
use crds::KafkaConsumerGroup;
use crds::client_config::KafkaCredentials;
use crds::spec::Kafka;
use kube::ResourceExt;

use super::prepare;
use super::session::documents;
use super::validate::Rules;
use crate::group::id::id_of;
use crate::group::members;
use crate::group::offset_reset::{changes, plan, query, record_offsets, set_record_times, table};
use crate::group::rejection::Rejection;
use crate::group::wording::count;
use crate::kafka::KafkaClients;
use crate::kafka::model::{MemberFacts, Partition, PartlyCommitted, ResetOutcome};
use args::ResetArgs;

/// This client reads once, so nothing is refreshed.
const REFRESH: Duration = Duration::from_secs(3600);

/// Plans the reset, prints it, and commits it if asked to. Errors are printed by `main`, with exit code 1.
pub async fn run(args: &ResetArgs) -> anyhow::Result<ExitCode> {
    let Target {
        group,
        group_id,
        kafka,
        credentials,
    } = find(args).await?;
    let reset = args.spec(&group.name_any()).map_err(|problem| anyhow!(problem))?;
    let refused = |rejection: Rejection| anyhow!(rejection.message);
    let query = query(&reset, &group_id, &group.spec).map_err(refused)?;
    let clients = KafkaClients::new(REFRESH);
    let positions = clients.reset_positions(&kafka, &credentials, &query).await?;
    let mut plan = plan(&reset, &group.spec, &positions).map_err(refused)?;
    let records = record_offsets(&plan);
    // Only for the eye of the user: without times the plan is the same.
    if let Ok(times) = clients.record_times(&kafka, &credentials, &records).await {
        set_record_times(&mut plan, &times);
    }
    print!(
        "{}{}",
        table::table(&plan.partitions),
        table::summary(&plan.totals, &plan.notes, &group_id)
    );
    if !args.execute {
        if !positions.members.is_empty() {
            println!("note: {}", occupied(&group_id, &positions.members));
        }
        println!(
            "nothing is changed: this is a dry run; run it again with --execute to commit the new offsets"
        );
        return Ok(ExitCode::SUCCESS);
    }
    if !positions.members.is_empty() {
        bail!("nothing is changed: {}", occupied(&group_id, &positions.members));
    }
    let offsets = changes(&plan.partitions);
    if offsets.is_empty() {
        println!("nothing is changed: the committed offsets are the new ones already");
        return Ok(ExitCode::SUCCESS);
    }
    match clients
        .commit_reset(
            &kafka,
            &credentials,
            &group_id,
            &offsets,
            plan.cluster_id.as_deref(),
        )
        .await
    {
        Ok(ResetOutcome::Committed) => println!("committed {}", count(plan.totals.changed, "offset")),
        Ok(ResetOutcome::OtherCluster(now)) => {
            bail!("nothing is changed: the addresses lead to another Kafka cluster now, with id {now}")
        }
        Ok(ResetOutcome::Partly(partly)) => bail!("{partly}; {}", rest(&partly, &offsets)),
        Ok(ResetOutcome::Members(members)) => {
            bail!("{}. {}", occupied(&group_id, &members), unconfirmed(&offsets))
        }
        Err(problem) => bail!("{problem}. {}", unconfirmed(&offsets)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The group to reset, and how to reach its brokers.
struct Target {
    group: KafkaConsumerGroup,
    group_id: String,
    kafka: Kafka,
    credentials: KafkaCredentials,
}

async fn find(args: &ResetArgs) -> anyhow::Result<Target> {
    let loaded = args.group.load()?;
    let source = &args.group.source;
    let (brokers, folders) = (source.brokers(), source.folders());
    let document = args.group.select(&loaded)?;
    let rules = Rules::without_containers();
    let prepared = documents::check(
        &rules,
        document,
        None,
        async |group| {
            let (kafka, credentials) = prepare::connection(&group, &loaded, &brokers, &folders)?;
            Ok(Target {
                group_id: id_of(&group),
                group,
                kafka,
                credentials,
            })
        },
        &source.namespace,
    );
    prepared.await.map_err(|problem| anyhow!(problem))
}

fn occupied(group_id: &str, members: &[MemberFacts]) -> String {
    let named: Vec<&MemberFacts> = members.iter().collect();
    let named = match members {
        [] => String::new(),
        _ => format!(" ({})", members::names(&named)),
    };
    format!(
        "consumer group {group_id} has members{named}, and Kafka sets offsets only for a group without; stop its workers: Ctrl-C in kafka-consumer-operator local, Stop in its dashboard, or desiredState: Stopped in a cluster. Members of killed processes leave after the session timeout, 45 s by default"
    )
}

/// A shift must not be applied twice, so the rest is named by its offsets.
fn rest(partly: &PartlyCommitted, offsets: &BTreeMap<Partition, i64>) -> String {
    let failed = offsets
        .iter()
        .filter(|(partition, _)| partly.failed.contains_key(*partition));
    format!("commit the others with {} --execute", arguments(failed))
}

/// For a commit without an answer that counts: a broker may have stored the offsets and the answer was lost.
fn unconfirmed(offsets: &BTreeMap<Partition, i64>) -> String {
    format!(
        "Kafka has not confirmed the new offsets, and some may be set already; run it again with exactly these: {} --execute",
        arguments(offsets.iter())
    )
}

/// The offsets as arguments of this command.
fn arguments<'a>(offsets: impl Iterator<Item = (&'a Partition, &'a i64)>) -> String {
    let argument =
        |((topic, index), offset): (&Partition, &i64)| format!("--to-offset {topic}:{index}={offset}");
    let arguments: Vec<String> = offsets.map(argument).collect();
    arguments.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_partial_reset_is_named_by_its_offsets() {
        let partition = |index| ("orders".to_string(), index);
        let partly = PartlyCommitted {
            committed: vec![partition(0)],
            failed: [(partition(1), "NOT_COORDINATOR".to_string())].into(),
        };
        let offsets = [(partition(0), 5), (partition(1), 7)].into();
        let expected = "commit the others with --to-offset orders:1=7 --execute";
        assert_eq!(rest(&partly, &offsets), expected);
        let lost = unconfirmed(&offsets);
        for part in [
            "some may be set already",
            "--to-offset orders:0=5 --to-offset orders:1=7 --execute",
        ] {
            assert!(lost.contains(part), "{lost}");
        }
    }
}

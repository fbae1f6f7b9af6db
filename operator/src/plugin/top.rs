//! `top`: lag and records per second, again and again. In: reads of the status. Out: a table. Numbers are as old as
//! the status: the operator writes them every 15 s at most, so the table says how old they are.

use std::time::Duration;

use jiff::Timestamp;

use super::DONE;
use super::args::TopArgs;
use super::cluster::Cluster;
use super::error::Error;
use super::rates::{Rate, Rates};
use super::terminal::Terminal;
use super::text::{age, number, or_unknown, table};
use super::view::GroupView;

/// The operator writes numbers that change every 15 s at most, so after this there can be a second one.
const SECOND_READ: Duration = Duration::from_secs(16);
const NOTE: &str = "The operator writes these numbers when they change, every 15 s at most, with many groups less often (docs/status.md).";

pub async fn run(cluster: &Cluster, args: &TopArgs, terminal: &mut Terminal) -> Result<u8, Error> {
    let mut rates = Rates::default();
    if args.once {
        for group in read(cluster, args).await? {
            rates.take(&group);
        }
        tokio::time::sleep(SECOND_READ).await;
        let groups = read(cluster, args).await?;
        terminal.print(&screen(
            &groups,
            &mut rates,
            args.all_namespaces,
            Timestamp::now(),
        ))?;
        return Ok(DONE);
    }
    loop {
        let read = read(cluster, args).await;
        terminal.clear()?;
        match read {
            Ok(groups) => terminal.print(&screen(
                &groups,
                &mut rates,
                args.all_namespaces,
                Timestamp::now(),
            ))?,
            // The API server may be busy for a moment; what the user may not see stays so.
            Err(error) if error.can_pass() => terminal.note(&error.to_string())?,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(args.interval).await;
    }
}

async fn read(cluster: &Cluster, args: &TopArgs) -> Result<Vec<GroupView>, Error> {
    match &args.group {
        Some(name) => Ok(vec![GroupView::read(cluster, name).await?]),
        None => GroupView::read_all(cluster, args.all_namespaces).await,
    }
}

fn screen(groups: &[GroupView], rates: &mut Rates, namespaces: bool, now: Timestamp) -> String {
    let mut header = vec![
        "NAME",
        "WORKERS",
        "LAG",
        "LAG AS OF",
        "RECORDS/S",
        "MEASURED",
        "IN FLIGHT",
        "DEAD LETTERS",
        "STALLED",
    ];
    let mut numbers = vec![1, 2, 4, 6, 7, 8];
    if namespaces {
        header.insert(0, "NAMESPACE");
        numbers.iter_mut().for_each(|column| *column += 1);
    }
    let rows = groups.iter().map(|group| {
        let rate = rates.take(group);
        let mut row = row(group, rate, now);
        if namespaces {
            row.insert(0, group.key.namespace.clone());
        }
        row
    });
    let text = table(&header, rows.collect(), &numbers);
    format!("{text}\n{NOTE}\n")
}

fn row(group: &GroupView, rate: Option<Rate>, now: Timestamp) -> Vec<String> {
    let status = &group.status;
    let lag = status.lag.as_ref();
    let totals = status.worker_totals.as_ref();
    let stalled = status
        .partitions
        .as_ref()
        .and_then(|partitions| partitions.stalled);
    let ago = |time: Timestamp| format!("{} ago", age(time, now));
    vec![
        group.key.name.clone(),
        format!(
            "{}/{}",
            or_unknown(status.ready_replicas),
            or_unknown(status.replicas)
        ),
        or_unknown(lag.map(|lag| number(lag.total))),
        lag.map_or_else(|| "-".into(), |lag| ago(lag.as_of)),
        or_unknown(rate.map(|rate| number(rate.per_second.round() as i64))),
        rate.map_or_else(|| "-".into(), |rate| ago(rate.as_of)),
        or_unknown(totals.map(|totals| number(totals.in_flight))),
        or_unknown(totals.map(|totals| number(totals.dead_lettered_total))),
        or_unknown(stalled),
    ]
}

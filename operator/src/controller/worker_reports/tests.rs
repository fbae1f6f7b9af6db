//! The reports of one group over time, and a round with real servers.

use axum::Router;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

fn key() -> GroupKey {
    GroupKey::new("shop", "orders")
}

fn target(name: &str, address: Option<&str>) -> Target {
    Target {
        name: name.into(),
        address: address.map(|address| address.parse().unwrap()),
        ready: true,
    }
}

fn entry(name: &str, reason: Option<&str>) -> WorkerStatus {
    WorkerStatus {
        name: name.into(),
        paused_reason: reason.map(String::from),
        reported_at: Some(Timestamp::UNIX_EPOCH),
        ..Default::default()
    }
}

fn report(worker: &str, reason: Option<&str>) -> Result<WorkerReport, String> {
    Ok(serde_json::from_value(json!({
        "worker": worker, "recordsTotal": 7, "partitions": [{"topic": "orders", "pausedReason": reason}],
    }))
    .unwrap())
}

/// A group with ready workers of these names, which all have an address.
fn group_of(names: &[&str]) -> (GroupReports, Vec<Target>) {
    let targets: Vec<Target> = names
        .iter()
        .map(|name| target(name, Some("127.0.0.1:9")))
        .collect();
    let mut group = GroupReports::default();
    group.update(&targets, &[], Timestamp::now());
    (group, targets)
}

async fn worker(name: &'static str, reason: &'static str) -> SocketAddr {
    let status = json!({"worker": name, "recordsTotal": 7, "partitions": [{"pausedReason": reason}]});
    let router = Router::new().route("/status", get(move || async move { axum::Json(status) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn a_round_reads_all_workers_and_requests_a_reconcile() {
    let reports = Arc::new(WorkerReports::default());
    let mut changes = reports.changes();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let targets = vec![
        target("a", Some(&worker("a", "RecordFailed").await.to_string())),
        target("b", Some(&closed.local_addr().unwrap().to_string())),
        target("c", Some(&worker("other", "RecordFailed").await.to_string())),
        target("d", None),
    ];
    drop(closed);
    let old = [
        entry("a", Some("WriterUnavailable")),
        entry("gone", Some("RecordFailed")),
    ];
    let first = reports.of(&key(), targets.clone(), &old);
    assert!(!first.complete);
    let names: Vec<&str> = first.entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["a"], "what the status said, of workers that exist");
    assert!(first.entries[0].reported_at > Some(Timestamp::UNIX_EPOCH));
    assert_eq!(changes.recv().await, Some(key()));
    let read = reports.of(&key(), targets.clone(), &old);
    assert!(!read.complete, "one failed read says nothing");
    let again = targets.iter().filter_map(|target| {
        Some(Due {
            name: target.name.clone(),
            address: target.address?,
            connect: ANSWER,
        })
    });
    reports.clone().round(key(), again.collect()).await;
    let read = reports.of(&key(), targets, &old);
    assert!(read.complete);
    assert_eq!(read.entries.len(), 1, "{:?}", read.entries);
    assert_eq!(
        (
            read.entries[0].records_total,
            read.entries[0].paused_reason.as_deref()
        ),
        (7, Some("RecordFailed"))
    );
    assert_eq!(reports.groups(), 1);
    reports.of(&GroupKey::new("shop", "stopped"), Vec::new(), &[]);
    assert_eq!(reports.groups(), 2, "one without workers counts too");
    reports.forget(&key());
    assert_eq!(reports.groups(), 1);
}

#[test]
fn a_group_is_read_again_after_a_while_and_for_a_new_worker_soon() {
    let (mut group, targets) = group_of(&["a"]);
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(group.start_round(targets.clone(), start).unwrap().len(), 1);
    assert_eq!(
        group.start_round(targets.clone(), at(60)),
        None,
        "it is being read"
    );
    group.note("a", report("a", None), Timestamp::now());
    group.finish(INTERVAL, Instant::now());
    assert_eq!(group.start_round(targets.clone(), at(8)), None);
    let mut more = targets.clone();
    more.push(target("b", Some("127.0.0.1:9")));
    group.update(&more, &[], Timestamp::now());
    assert_eq!(group.start_round(more.clone(), at(1)), None);
    assert_eq!(group.start_round(more.clone(), at(2)).unwrap().len(), 2);
    assert!(
        group.start_round(more, at(2) + ROUND).is_some(),
        "a round that never ended"
    );
    group.finish(INTERVAL, Instant::now());
    assert!(group.start_round(targets, at(2) + ROUND + REREAD).is_some());
    assert_eq!(group.start_round(vec![target("a", None)], at(9999)), None);
}

#[test]
fn a_ready_worker_that_does_not_answer_twice_is_silent_and_keeps_its_last_report() {
    let (mut group, targets) = group_of(&["a", "b"]);
    let fail = || Err("no answer".to_string());
    let silent = |group: &GroupReports| group.read(&[], Timestamp::now()).silent;
    group.note("a", report("a", None), Timestamp::now());
    group.note("b", fail(), Timestamp::now());
    assert!(group.finish(INTERVAL, Instant::now()) && silent(&group).is_empty());
    group.note("a", fail(), Timestamp::now());
    group.note("b", fail(), Timestamp::now());
    assert!(group.finish(INTERVAL, Instant::now()));
    assert_eq!(silent(&group), ["pod b: no answer"]);
    assert_eq!(group.read(&[], Timestamp::now()).entries.len(), 1);
    let starting: Vec<Target> = targets
        .into_iter()
        .map(|target| Target {
            ready: false,
            ..target
        })
        .collect();
    group.update(&starting, &[], Timestamp::now());
    assert!(silent(&group).is_empty(), "a worker that starts does not answer");
}

#[test]
fn an_answer_of_another_worker_is_no_report() {
    let (mut group, _) = group_of(&["a"]);
    for _ in 0..SILENT {
        group.note("a", report("b", Some("RecordFailed")), Timestamp::now());
    }
    group.finish(INTERVAL, Instant::now());
    let read = group.read(&[], Timestamp::now());
    assert!(read.entries.is_empty());
    assert_eq!(read.silent, ["pod a: another process answers at its address"]);
}

#[test]
fn a_reconcile_is_requested_when_problems_change_and_rarely_for_numbers() {
    let (mut group, _) = group_of(&["a"]);
    let start = Instant::now();
    let mut round = |seconds: u64, records: u64, reason: Option<&str>| {
        let mut report = report("a", reason).unwrap();
        report.records_total = records;
        group.note("a", Ok(report), Timestamp::now());
        group.finish(Duration::from_secs(60), start + Duration::from_secs(seconds))
    };
    assert!(round(0, 1, None), "the first one");
    assert!(!round(15, 2, None));
    assert!(round(30, 3, Some("WriterUnavailable")));
    assert!(!round(45, 4, Some("WriterUnavailable")));
    assert!(round(60, 5, None));
    assert!(!round(119, 6, None));
    assert!(round(120, 7, None), "the numbers are written every minute");
    assert!(!round(180, 7, None), "they have not changed");
}

#[test]
fn all_groups_together_write_numbers_once_per_second() {
    let seconds = |groups| numbers_interval(groups).as_secs();
    assert_eq!([seconds(0), seconds(15), seconds(1000)], [15, 15, 1000]);
}

#[test]
fn after_a_restart_the_old_entries_count_until_each_worker_has_answered_or_is_silent() {
    let old = [entry("a", Some("RecordFailed"))];
    let targets = ["a", "b"].map(|name| target(name, Some("127.0.0.1:9")));
    let mut group = GroupReports::default();
    let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
    group.update(&targets, &old, at(0));
    group.note("b", report("b", None), at(1));
    group.note("a", Err("no answer".into()), at(2));
    group.finish(INTERVAL, Instant::now());
    let read = group.read(&old, at(3));
    assert!(
        !read.complete && read.silent.is_empty(),
        "one failed read says nothing"
    );
    assert_eq!(read.entries, [read_at(&old[0], at(3))]);
    group.note("a", Err("no answer".into()), at(20));
    assert!(group.finish(INTERVAL, Instant::now()));
    let read = group.read(&old, at(21));
    assert_eq!((read.complete, read.entries.len()), (true, 2));
    assert_eq!(read.silent, ["pod a: no answer"], "silent as before the restart");
    assert_eq!(
        read.entries[0],
        read_at(&old[0], at(20)),
        "nobody has read it before"
    );
    group.note("a", Err("no answer".into()), at(90));
    let read = group.read(&old, at(91));
    assert_eq!(read.entries[0].reported_at, Some(at(20)), "from now on it ages");
}

#[test]
fn a_silent_worker_is_asked_once_a_minute_after_the_others() {
    let (mut group, targets) = group_of(&["a", "b"]);
    let start = Instant::now();
    let names = |group: &mut GroupReports, targets: &[Target], second: u64| -> Vec<String> {
        let at = start + Duration::from_secs(second);
        let due = group.start_round(targets.to_vec(), at).unwrap_or_default();
        for due in &due {
            assert_eq!(due.connect < ANSWER, due.name == "a" && second > 15);
            let answer = match due.name.as_str() {
                "a" => Err("no answer".to_string()),
                name => report(name, None),
            };
            group.note(&due.name, answer, Timestamp::now());
        }
        group.finish(INTERVAL, at);
        due.into_iter().map(|due| due.name).collect()
    };
    let rounds = [0, 15, 30, 45, 60, 75, 90].map(|second| names(&mut group, &targets, second));
    let both = |round: &&Vec<String>| round.len() == 2;
    assert_eq!(rounds.iter().filter(both).count(), 3, "{rounds:?}");
    assert_eq!(rounds[5], ["b", "a"], "60 s after the second failure");
    let mut ready = targets.clone();
    ready[0].ready = false;
    group.update(&ready, &[], Timestamp::now());
    group.update(&targets, &[], Timestamp::now());
    assert!(group.read(&[], Timestamp::now()).silent.is_empty());
    let due = group
        .start_round(targets, start + Duration::from_secs(93))
        .unwrap();
    assert_eq!(due.len(), 2, "it has become ready and is asked soon");
}

#[test]
fn ranges_beyond_those_of_an_entry_are_remembered() {
    let (mut group, _) = group_of(&["a"]);
    let skipped = json!({"fromOffset": 3, "toOffset": 9, "time": "2026-01-31T09:00:00Z"});
    let partitions = (0..20).map(|n| json!({"partition": n, "skippedByRetention": skipped}));
    let report = json!({"worker": "a", "partitions": partitions.collect::<Vec<_>>()});
    group.note("a", Ok(serde_json::from_value(report).unwrap()), Timestamp::now());
    group.finish(INTERVAL, Instant::now());
    let read = group.read(&[], Timestamp::now());
    assert_eq!(
        (read.skipped.len(), read.entries[0].skipped_by_retention.len()),
        (20, 8)
    );
}

#[test]
fn workers_that_are_gone_are_forgotten_and_a_group_without_workers_is_known() {
    let (mut group, _) = group_of(&["a"]);
    group.note("a", report("a", None), Timestamp::now());
    group.update(&[], &[], Timestamp::now());
    let read = group.read(&[entry("a", None)], Timestamp::now());
    assert_eq!((read.complete, read.entries), (true, Vec::new()));
}

#[test]
fn the_address_is_that_of_the_pod_also_with_ipv6() {
    let of = |ip: Option<&str>| {
        let pod = json!({"metadata": {"name": "a"}, "status": {"podIP": ip}});
        Target::of(&serde_json::from_value(pod).unwrap())
    };
    assert_eq!(
        of(Some("10.0.0.7")),
        Target {
            ready: false,
            ..target("a", Some("10.0.0.7:8080"))
        }
    );
    assert_eq!(
        of(Some("fd00::7")).address,
        Some("[fd00::7]:8080".parse().unwrap())
    );
    assert_eq!((of(None).address, of(Some("x")).address), (None, None));
}

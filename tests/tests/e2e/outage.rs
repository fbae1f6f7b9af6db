//! The system behind a writer is unavailable for longer than Kafka allows a consumer not to poll, and becomes
//! available again.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{
    Load, World, scenario, scenario_alone,
    systems::{
        command, consumer_groups,
        http_sink::HttpSink,
        kubernetes::{identities, summary},
    },
    until,
    verify::{check::check, load},
};
use serde_json::{Value, json};

/// max.poll.interval of the groups here.
const POLL_INTERVAL: Duration = Duration::from_secs(12);
/// Two and a half times this: long before, the group would have removed a consumer that stopped polling.
const OUTAGE: Duration = Duration::from_secs(30);

const PARTITIONS: i32 = 4;
const BEFORE: u64 = 400;
const DURING: u64 = 4000;

/// A system behind a writer that the test can take down.
trait Behind {
    /// How many records an outage may repeat.
    const REPEATED: u64;
    async fn set_down(&self, down: bool) -> Result<()>;
    /// Keys and sequence numbers of a run that it has, for each key in order.
    async fn arrivals(&self, run: &str) -> Result<Vec<(String, u64)>>;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_outage_beyond_max_poll_interval_causes_no_rebalance_and_loses_no_record() -> Result<()> {
    scenario("outage-http", async |world| {
        let sink = HttpSink::start(&world.env).await?;
        let writer = json!({"name": "api", "type": "Http", "http": {"url": sink.url, "timeoutSeconds": 5}});
        survives(world, writer, &sink).await?;
        println!("  {} requests were answered with 503", sink.refused());
        assert!(sink.refused() > 0, "the writer has tried");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_outage_beyond_max_poll_interval_causes_no_rebalance_and_loses_no_record() -> Result<()>
{
    scenario_alone("outage-pg", async |world| {
        let table = world.table_name("orders");
        let columns = "id text primary key, run text, key text, sequence bigint, total bigint, status text";
        world.postgres().await?.create_table(&table, columns).await?;
        world
            .apply_secret("warehouse", &[("url", &world.env.variable("POSTGRES_URL")?)])
            .await?;
        let writer = json!({"name": "warehouse", "type": "Postgres", "postgres": {
            "connection": {"secretName": "warehouse", "key": "url"}, "table": table, "keyColumns": ["id"],
        }});
        let database = Database { world, table };
        let result = survives(world, writer, &database).await;
        // In any case: the next test needs it.
        database.set_down(false).await?;
        result?;
        let drop = format!("drop table {}", database.table);
        Ok(world.postgres().await?.client.batch_execute(&drop).await?)
    })
    .await
}

/// A group with this writer before, during and after an outage.
async fn survives<B: Behind>(world: &World, writer: Value, behind: &B) -> Result<()> {
    let input = world.topic("orders", PARTITIONS).await?;
    let dead = world.topic("dlq", 1).await?;
    let name = writer["name"].as_str().unwrap_or_default().to_string();
    world
        .apply_group(
            "orders",
            json!({
                "topics": [{"name": input}],
                "kafka": {"clientConfig": {
                    "max.poll.interval.ms": POLL_INTERVAL.as_millis().to_string(),
                    "session.timeout.ms": "6000",
                    "heartbeat.interval.ms": "1000",
                }},
                "decode": {"value": {"type": "Json"}},
                "transforms": [{"name": "ship", "type": "Vrl", "vrl": {"source": load::SHIP}}],
                // Small, so that many batches of each partition fall into the outage.
                "processing": {"batch": {"maxRecords": 100}},
                "writers": [writer],
                "errorHandling": {"deadLetter": {"topic": dead}, "retry": {"maxBackoffSeconds": 2}},
                "scaling": {"partitionsPerWorker": 2},
            }),
        )
        .await?;
    world.until_ready("orders", 2).await?;
    let group_id = world.group_id("orders");
    let before = Load::new(&input, "before", 0..PARTITIONS)
        .produce(&world.kafka, BEFORE)
        .await?;
    world.kafka.until_drained(&group_id, &input).await?;

    let workers = identities(&world.workers("orders").await?);
    let members = members(world, &group_id).await?;
    assert_eq!(members.len(), 2, "{members:?}");
    let rebalances = world
        .workers_metric("orders", "kcg_worker_rebalances_total")
        .await?;
    assert!(rebalances > 0.0, "the first assignment is counted");
    let committed = world.kafka.committed(&group_id, &input).await?;

    behind.set_down(true).await?;
    let from = tokio::time::Instant::now();
    let during = Load::new(&input, "during", 0..PARTITIONS)
        .produce(&world.kafka, DURING)
        .await?;
    let condition = until("status shows that the writer is unavailable", async || {
        let condition = world.until_condition("orders", "Consuming", "False").await?;
        ensure!(condition.reason == "WriterUnavailable", "{condition:?}");
        Ok(condition)
    })
    .await?;
    println!("  {}", condition.message);
    assert!(
        condition.message.contains(&name),
        "the message names the writer: {}",
        condition.message
    );
    until("every worker reports it", async || {
        let group = world.group("orders").await?;
        let status = group.status.clone().unwrap_or_default();
        let held = |reason: &Option<String>| reason.as_deref() == Some("WriterUnavailable");
        ensure!(
            status.workers.len() == 2 && status.workers.iter().all(|worker| held(&worker.paused_reason)),
            "{:?}",
            status.workers
        );
        Ok(())
    })
    .await?;
    // Not a wait for a state: this is the duration of the outage.
    tokio::time::sleep_until(from + OUTAGE).await;

    assert_eq!(
        self::members(world, &group_id).await?,
        members,
        "no member left the group and none joined"
    );
    assert_eq!(
        world.kafka.committed(&group_id, &input).await?,
        committed,
        "nothing is committed that is not written"
    );
    behind.set_down(false).await?;
    world.kafka.until_drained(&group_id, &input).await?;

    assert_eq!(
        self::members(world, &group_id).await?,
        members,
        "no member left the group and none joined"
    );
    assert_eq!(
        world
            .workers_metric("orders", "kcg_worker_rebalances_total")
            .await?,
        rebalances,
        "no partition was assigned or revoked"
    );
    assert_eq!(
        identities(&world.workers("orders").await?),
        workers,
        "no worker was restarted"
    );
    for (ledger, repeated) in [(&before, 0), (&during, B::REPEATED)] {
        let verdict = check(ledger, behind.arrivals(&ledger.run).await?);
        println!("  {}: {verdict}", ledger.run);
        assert!(verdict.complete(), "{verdict}");
        assert!(verdict.duplicates() <= repeated, "{verdict}");
    }
    assert!(
        world.kafka.read_all(&dead).await?.is_empty(),
        "no record fails because of an outage"
    );
    world.until_condition("orders", "Consuming", "True").await?;
    let group = world.until_ready("orders", 2).await?;
    println!("  {}", summary(&group));
    Ok(())
}

/// Member ids from Kafka's own tool: a member that was removed returns with another id.
async fn members(world: &World, group: &str) -> Result<Vec<String>> {
    let mut members = consumer_groups::members(&world.env, group).await?;
    members.sort();
    Ok(members)
}

impl Behind for HttpSink {
    /// One for each worker: a 503 may be the fault of the first record, so another one is tried before its
    /// turn, and written again in its turn.
    const REPEATED: u64 = 2;

    async fn set_down(&self, down: bool) -> Result<()> {
        HttpSink::set_down(self, down);
        Ok(())
    }

    async fn arrivals(&self, run: &str) -> Result<Vec<(String, u64)>> {
        Ok(HttpSink::arrivals(self, run))
    }
}

/// The cluster's database server, and a table in it.
struct Database<'a> {
    world: &'a World,
    table: String,
}

impl Behind for Database<'_> {
    const REPEATED: u64 = 0;

    async fn set_down(&self, down: bool) -> Result<()> {
        let script = if down {
            "postgres-stop.sh"
        } else {
            "postgres-start.sh"
        };
        let no_arguments: [&str; 0] = [];
        command::run(self.world.env.cluster_scripts.join(script), &no_arguments, None)
            .await?
            .ok(script)
            .map(drop)
    }

    async fn arrivals(&self, run: &str) -> Result<Vec<(String, u64)>> {
        let database = self.world.postgres().await?;
        let query = format!(
            "select key, sequence from {} where run = $1 order by sequence",
            self.table
        );
        let rows = database.client.query(&query, &[&run]).await?;
        Ok(rows
            .iter()
            .map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs()))
            .collect())
    }
}

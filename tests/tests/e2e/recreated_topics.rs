//! A topic that is deleted and created again under the same name, and written to at once: no offset of the
//! deleted topic counts for the new one. In local mode, with one group for each way to keep offsets.

use anyhow::{Context, Result, ensure};
use harness::{
    Env, Kafka, Ledger, Load, beside_others,
    systems::{
        local::{Process, program},
        postgres::Postgres,
    },
    until,
    verify::{
        check::{check, check_records},
        load,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PARTITIONS: i32 = 3;
const GROUPS: [&str; 4] = ["kafka", "transactions", "table", "stopped"];

struct Test {
    kafka: Kafka,
    database: Postgres,
    input: String,
    table: String,
    folder: TempDir,
}

impl Test {
    async fn new(env: &Env) -> Result<Self> {
        let folder = TempDir::new()?;
        let run = format!("recreated-{}", std::process::id());
        let test = Self {
            kafka: Kafka::new(&env.kafka),
            database: Postgres::connect(env).await?,
            input: format!("{run}.orders"),
            table: run.replace('-', "_"),
            folder,
        };
        let columns = "id text primary key, run text, key text, sequence bigint, total bigint, status text";
        test.database.create_table(&test.table, columns).await?;
        let offsets = "group_id text NOT NULL, topic text NOT NULL, partition int NOT NULL, topic_id text NOT \
                       NULL, next_offset bigint NOT NULL, ahead text NOT NULL, owner text NOT NULL, \
                       owner_epoch bigint NOT NULL, updated_at timestamptz NOT NULL, PRIMARY KEY (group_id, \
                       topic, partition)";
        test.database.create_table(&test.offsets(), offsets).await?;
        test.kafka.create_topic(&test.input, PARTITIONS).await?;
        for group in GROUPS {
            test.kafka.create_topic(&test.output(group), PARTITIONS).await?;
        }
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "warehouse"},
            "stringData": {"url": env.variable("POSTGRES_URL")?},
        });
        test.write("secret", &secret)?;
        for group in GROUPS {
            test.write(group, &test.group(env, group, "Restart"))?;
        }
        Ok(test)
    }

    fn output(&self, group: &str) -> String {
        format!("{}.{group}", self.input)
    }

    fn offsets(&self) -> String {
        format!("{}_offsets", self.table)
    }

    fn write(&self, name: &str, document: &Value) -> Result<()> {
        let file = self.folder.path().join(format!("{name}.yaml"));
        Ok(std::fs::write(file, serde_json::to_vec(document)?)?)
    }

    fn group(&self, env: &Env, group: &str, on_recreated: &str) -> Value {
        let to_table = json!({"name": "out", "type": "Postgres", "postgres": {
            "connection": {"secretName": "warehouse", "key": "url"}, "table": self.table,
            "keyColumns": ["id"], "offsetsTable": self.offsets(),
        }});
        let to_topic = json!({"name": "out", "type": "Kafka", "kafka": {"topic": self.output(group)}});
        let exactly_once = matches!(group, "transactions" | "table");
        json!({
            "apiVersion": "kafka-consumer.dev/v1alpha1",
            "kind": "KafkaConsumerGroup",
            "metadata": {"name": group},
            "spec": {
                "kafka": {"bootstrapServers": [env.kafka]},
                "topics": [{"name": self.input}],
                "consumer": {"onTopicRecreated": on_recreated},
                "decode": {"value": {"type": "Json"}},
                "transforms": [{"name": "ship", "type": "Vrl", "vrl": {"source": load::SHIP}}],
                "writers": [if group == "table" { to_table } else { to_topic }],
                "processing": {
                    "deliveryGuarantee": if exactly_once { "ExactlyOnce" } else { "AtLeastOnce" },
                    "commitIntervalMilliseconds": 200,
                },
            },
        })
    }

    fn start(&self) -> Result<Process> {
        let folder = self.folder.path().display().to_string();
        Process::start(
            &program("kafka-consumer-operator")?,
            &["local", "-f", &folder, "--max-workers", "1"],
        )
    }

    /// Deletes the topic, creates it again, and writes to it at once.
    async fn recreate(&self, run: &str, records: u64) -> Result<Ledger> {
        self.kafka
            .delete_topics(std::slice::from_ref(&self.input))
            .await?;
        self.kafka.create_topic(&self.input, PARTITIONS).await?;
        Load::new(&self.input, run, 0..PARTITIONS)
            .produce(&self.kafka, records)
            .await
    }

    /// Waits until a group has written every record of a ledger, and checks that it has written none twice.
    async fn until_written(&self, group: &str, ledger: &Ledger) -> Result<()> {
        until(
            &format!("{group} has written all of {}", ledger.run),
            async || {
                let verdict = if group == "table" {
                    let sql = format!("select key, sequence from {} where run = $1", self.table);
                    let rows = self.database.client.query(&sql, &[&ledger.run]).await?;
                    let arrival = |row: &tokio_postgres::Row| (row.get(0), row.get::<_, i64>(1) as u64);
                    let mut arrivals: Vec<(String, u64)> = rows.iter().map(arrival).collect();
                    // A table has no order.
                    arrivals.sort();
                    check(ledger, arrivals)
                } else {
                    check_records(ledger, &self.kafka.read_all(&self.output(group)).await?)?
                };
                ensure!(verdict.complete(), "{verdict}");
                ensure!(verdict.duplicates() == 0, "{verdict}");
                Ok(())
            },
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_read_from_its_first_record() -> Result<()> {
    let _beside_others = beside_others().await;
    let env = Env::read()?;
    let test = Test::new(&env).await?;
    test.write("stopped", &test.group(&env, "stopped", "Stop"))?;
    let mut local = test.start()?;
    let first = Load::new(&test.input, "first", 0..PARTITIONS)
        .produce(&test.kafka, 300)
        .await?;
    for group in GROUPS {
        test.until_written(group, &first).await?;
        test.kafka
            .until_drained(&format!("default.{group}"), &test.input)
            .await?;
    }

    println!("  more records than before, so that the old position is not out of range");
    let second = test.recreate("second", 450).await?;
    let reading = &GROUPS[..3];
    for group in reading {
        test.until_written(group, &second).await?;
    }
    println!("  fewer records than before: nothing is above the old position");
    let third = test.recreate("third", 90).await?;
    for group in reading {
        test.until_written(group, &third).await?;
    }
    for line in ["kafka: TopicRecreated", "consumer.onTopicRecreated is Stop"] {
        println!("  {}", local.until_prints(line).await?);
    }
    local.interrupt().await?;
    local.end().await?;

    println!("  the next worker of a stopped group reads nothing either, until its user decides");
    let mut local = test.start()?;
    local.until_prints("consumer.onTopicRecreated is Stop").await?;
    let stopped = test.kafka.read_all(&test.output("stopped")).await?;
    assert_eq!(stopped.len(), 300, "nothing of the later topics");
    test.write("stopped", &test.group(&env, "stopped", "Restart"))?;
    test.until_written("stopped", &third).await?;
    local.interrupt().await?;
    let (code, printed) = local.end().await?;
    assert_eq!(code, 0, "{printed}");

    println!("  while no worker runs");
    let fourth = test.recreate("fourth", 600).await?;
    let local = test.start()?;
    for group in GROUPS {
        test.until_written(group, &fourth).await?;
    }
    local.interrupt().await?;
    local.end().await?;

    println!("  records that retention removes while no worker runs");
    Load::new(&test.input, "fifth", 0..PARTITIONS)
        .produce(&test.kafka, 90)
        .await?;
    test.kafka.delete_records(&test.input, 0, 220).await?;
    let mut local = test.start()?;
    let line = local.until_prints("retention has removed records").await?;
    assert!(line.contains("from=200 up_to=220 records=20"), "{line}");
    local.interrupt().await?;
    local.end().await?;
    test.kafka
        .delete_topics(std::slice::from_ref(&test.input))
        .await?;
    let drop = format!("drop table {}, {}", test.table, test.offsets());
    test.database
        .client
        .batch_execute(&drop)
        .await
        .context("removing the tables")
}

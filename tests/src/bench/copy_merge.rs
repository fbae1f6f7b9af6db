//! The yardstick for the Postgres writer, the best that one would write by hand for the server: COPY
//! puts batches of [`BATCH`] orders into a temporary table, and INSERT ... ON CONFLICT merges them into the
//! real one, one transaction each. Over one connection as such loops do, or over several, each with its share
//! of the partitions, to see the limit of the server. No group, no commits to Kafka, no retries; an
//! unexpected record ends it.
//!
//! Prints `first` at the first record and `last` when all are committed, then waits for the end of stdin.

use std::{
    io::{self, Read as _},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::SinkExt as _;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::{Client, NoTls};

use super::raw::{SILENCE, print_mark};

/// Records of a transaction: the worker's default.
const BATCH: usize = 1000;
/// Longest wait for a record; then the loop writes what it has.
const TICK: Duration = Duration::from_millis(20);

/// The table, the same as in the worker's case.
pub(super) const TABLE: &str = "bench_orders";
/// Its columns: the fields of the orders of [`super::topics`].
pub(super) const COLUMNS: &str = "order_id bigint primary key, user_id int, country text, ts bigint, amount numeric(12,2), \
                                  currency text, items jsonb, status text";

/// Creates the temporary table.
pub(super) fn make_stage() -> String {
    format!("create temp table stage (like {TABLE}) on commit delete rows")
}

/// Merges its rows into [`TABLE`].
pub(super) fn merge_into_table() -> String {
    format!(
        "insert into {TABLE} select * from stage on conflict (order_id) do update set user_id = excluded.user_id, \
         country = excluded.country, ts = excluded.ts, amount = excluded.amount, currency = excluded.currency, \
         items = excluded.items, status = excluded.status"
    )
}

#[derive(Deserialize)]
struct Order<'a> {
    order_id: u64,
    user_id: u64,
    country: &'a str,
    ts: u64,
    #[serde(borrow)]
    amount: &'a RawValue,
    currency: &'a str,
    items: &'a RawValue,
    status: &'a str,
}

/// Writes `records` records of `topic`.
pub(super) fn run(bootstrap: &str, topic: &str, records: u64, url: &str, connections: usize) -> Result<()> {
    let consumer: BaseConsumer = client(bootstrap).create().context("cannot create the consumer")?;
    let metadata = consumer.fetch_metadata(Some(topic), SILENCE)?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    ensure!(partitions > 0, "topic {topic} does not exist");
    let read = Arc::new(AtomicU64::new(0));
    let (first, started) = mpsc::channel();
    let writers: Vec<_> = (0..connections)
        .map(|number| {
            let mut share = TopicPartitionList::new();
            for partition in (number..partitions).step_by(connections) {
                share.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
            }
            let consumer: BaseConsumer = client(bootstrap).create().context("cannot create the consumer")?;
            consumer.assign(&share)?;
            let (url, read, first) = (url.to_string(), read.clone(), first.clone());
            Ok(thread::spawn(move || {
                copy(&consumer, &url, records, &read, &first)
            }))
        })
        .collect::<Result<_>>()?;
    drop(first);
    if started.recv().is_ok() {
        print_mark("first")?;
    }
    for writer in writers {
        match writer.join() {
            Ok(result) => result?,
            Err(_) => bail!("a writer panicked"),
        }
    }
    print_mark("last")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bench-copy-merge")
        .set("enable.auto.commit", "false")
        // The worker's setting; the default makes a slow reader slower still.
        .set("fetch.queue.backoff.ms", "20");
    config
}

/// Writes the records of `consumer` until all writers together have read everything.
fn copy(
    consumer: &BaseConsumer,
    url: &str,
    records: u64,
    read: &AtomicU64,
    first: &mpsc::Sender<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut client = runtime.block_on(connect(url))?;
    let (mut rows, mut count) = (String::new(), 0);
    let mut last_read = Instant::now();
    loop {
        let message = consumer.poll(TICK).transpose()?;
        if let Some(message) = &message {
            last_read = Instant::now();
            append(message.payload().unwrap_or_default(), &mut rows)?;
            if count == 0 {
                // Waits only for the first record of all.
                let _ = first.send(());
            }
            count += 1;
        }
        if count >= BATCH || message.is_none() && count > 0 {
            runtime.block_on(merge(&mut client, std::mem::take(&mut rows)))?;
            read.fetch_add(count as u64, Ordering::Relaxed);
            count = 0;
        }
        if message.is_none() && read.load(Ordering::Relaxed) >= records {
            return Ok(());
        }
        ensure!(last_read.elapsed() < SILENCE, "no record for {SILENCE:?}");
    }
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("PostgreSQL")?;
    // The next statement fails with this error.
    tokio::spawn(connection);
    client.batch_execute(&make_stage()).await?;
    Ok(client)
}

async fn merge(client: &mut Client, rows: String) -> Result<()> {
    let transaction = client.transaction().await?;
    {
        let mut copy = pin!(transaction.copy_in("copy stage from stdin").await?);
        copy.send(Bytes::from(rows)).await?;
        copy.finish().await?;
    }
    transaction.execute_typed(&merge_into_table(), &[]).await?;
    Ok(transaction.commit().await?)
}

/// A row in COPY's text format.
fn append(value: &[u8], rows: &mut String) -> Result<()> {
    let order: Order<'_> = serde_json::from_slice(value).context("not an order")?;
    let (id, user, ts) = (
        order.order_id.to_string(),
        order.user_id.to_string(),
        order.ts.to_string(),
    );
    let fields = [
        &id,
        &user,
        order.country,
        &ts,
        order.amount.get(),
        order.currency,
        order.items.get(),
        order.status,
    ];
    for (index, field) in fields.into_iter().enumerate() {
        if index > 0 {
            rows.push('\t');
        }
        for character in field.chars() {
            match character {
                '\\' => rows.push_str("\\\\"),
                '\t' => rows.push_str("\\t"),
                '\n' => rows.push_str("\\n"),
                '\r' => rows.push_str("\\r"),
                other => rows.push(other),
            }
        }
    }
    rows.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_becomes_a_line_of_eight_columns() {
        let order = r#"{"order_id":1,"user_id":2,"country":"DE","ts":3,"amount":4.50,"currency":"EUR","items":[{"sku":"a\\b"}],"status":"new"}"#;
        let mut rows = String::new();
        append(order.as_bytes(), &mut rows).unwrap();
        assert_eq!(rows, "1\t2\tDE\t3\t4.50\tEUR\t[{\"sku\":\"a\\\\\\\\b\"}]\tnew\n");
    }
}

//! Kafka's own ConsumerGroupCommand, an independent view of a group. It starts a JVM, so tests call it at the
//! end of a wait and not in the loop.

use anyhow::{Context, Result};

use crate::systems::{command, env::Env};

/// One line of `--describe`: a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub topic: String,
    pub partition: i32,
    /// None: printed as "-", because the group has committed nothing.
    pub committed: Option<i64>,
    pub end: Option<i64>,
    pub lag: Option<i64>,
    /// None: no member owns it.
    pub consumer: Option<String>,
}

/// `kafka-consumer-groups --describe --group GROUP`.
pub async fn describe(env: &Env, group: &str) -> Result<Vec<Partition>> {
    let text = tool(env, &["--describe", "--group", group]).await?;
    partitions(&text, group).with_context(|| format!("ConsumerGroupCommand printed: {text}"))
}

/// The ids of a group's members, `kafka-consumer-groups --describe --members`.
pub async fn members(env: &Env, group: &str) -> Result<Vec<String>> {
    let text = tool(env, &["--describe", "--members", "--group", group]).await?;
    Ok(rows(&text, group)
        .filter_map(|row| row.get(1).map(|id| id.to_string()))
        .collect())
}

/// The type of a group, "Classic" or "Consumer" (KIP-848): `kafka-consumer-groups --list --type`. Empty: no
/// such group.
pub async fn types(env: &Env, group: &str) -> Result<Vec<String>> {
    let text = tool(env, &["--list", "--type"]).await?;
    Ok(rows(&text, group)
        .filter_map(|row| row.get(1).map(|kind| kind.to_string()))
        .collect())
}

/// Sets the broker's settings of one group, such as "consumer.session.timeout.ms=45000":
/// `kafka-configs --alter --entity-type groups`.
pub async fn configure(env: &Env, group: &str, settings: &str) -> Result<()> {
    let arguments = [
        "kafka.admin.ConfigCommand",
        "--bootstrap-server",
        &env.kafka,
        "--alter",
        "--entity-type",
        "groups",
        "--entity-name",
        group,
        "--add-config",
        settings,
    ];
    command::run(env.cluster_scripts.join("kafka-tool.sh"), &arguments, None)
        .await?
        .ok("ConfigCommand")
        .map(drop)
}

async fn tool(env: &Env, arguments: &[&str]) -> Result<String> {
    let mut all = vec![
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        "--bootstrap-server",
        &env.kafka,
    ];
    all.extend(arguments);
    command::run(env.cluster_scripts.join("kafka-tool.sh"), &all, None)
        .await?
        .ok("ConsumerGroupCommand")
}

fn rows<'a>(text: &'a str, group: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(move |row| row.first() == Some(&group))
}

fn partitions(text: &str, group: &str) -> Result<Vec<Partition>> {
    let header: Vec<&str> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .find(|row: &Vec<&str>| row.first() == Some(&"GROUP"))
        .context("no header line")?;
    let column = |name: &str| {
        header
            .iter()
            .position(|title| *title == name)
            .with_context(|| format!("no column {name}"))
    };
    let (topic, partition) = (column("TOPIC")?, column("PARTITION")?);
    let (committed, end, lag) = (
        column("CURRENT-OFFSET")?,
        column("LOG-END-OFFSET")?,
        column("LAG")?,
    );
    let consumer = column("CONSUMER-ID")?;
    rows(text, group)
        .map(|row| {
            let cell = |index: usize| row.get(index).copied().filter(|cell| *cell != "-");
            let number = |index: usize| cell(index).and_then(|cell| cell.parse().ok());
            Ok(Partition {
                topic: cell(topic).context("no topic")?.into(),
                partition: cell(partition).context("no partition")?.parse()?,
                committed: number(committed),
                end: number(end),
                lag: number(lag),
                consumer: cell(consumer).map(Into::into),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_by_its_column_names() {
        let text = "\nGROUP  TOPIC  PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG  CONSUMER-ID  HOST  CLIENT-ID\n\
                    g      t      1          -               5               -    -            -     -\n\
                    g      t      0          3               5               2    c-1          /10.0.0.1  c\n";
        let found = partitions(text, "g").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].committed, found[0].lag, found[0].consumer.as_deref()),
            (None, None, None)
        );
        assert_eq!(
            (found[1].committed, found[1].end, found[1].lag),
            (Some(3), Some(5), Some(2))
        );
        assert_eq!(found[1].consumer.as_deref(), Some("c-1"));
    }
}

use crds::client_config::KafkaCredentials;
use crds::spec::*;
use operator::kafka::*;
use std::time::Instant;
fn kafka(y: &str) -> Kafka {
    serde_yaml::from_str(y).unwrap()
}
#[tokio::main]
async fn main() {
    let clients = KafkaClients::new();
    let plain = kafka("bootstrapServers: ['127.0.0.1:29092']");
    let none = KafkaCredentials::default();
    let q = |g: &str, ts: &[&str]| FactsQuery {
        group_id: g.into(),
        topics: ts.iter().map(|t| t.to_string()).collect(),
        isolation: IsolationLevel::ReadCommitted,
    };
    println!(
        "live group: {:?}",
        clients.facts(&plain, &none, &q("shop.orders", &["orders"])).await
    );
    println!(
        "live start: {:?}",
        clients
            .commit_start_positions(
                &plain,
                &none,
                &q("shop.orders", &["orders", "t1"]),
                &StartPosition::default()
            )
            .await
    );
    let scram = kafka(
        "{bootstrapServers: ['127.0.0.1:29094'], sasl: {mechanism: SCRAM-SHA-512, credentials: {secretName: s}}}",
    );
    let login = |u: &str, p: &str| KafkaCredentials {
        username: Some(u.into()),
        password: Some(p.into()),
        ..Default::default()
    };
    for (u, p) in [("bob", "builder")] {
        let t = Instant::now();
        println!(
            "{u}/{p}: {:?} {:?}",
            clients.facts(&scram, &login(u, p), &q("g1", &["t1"])).await,
            t.elapsed()
        );
        println!(
            "  provision {:?}",
            clients
                .provision(
                    &scram,
                    &login(u, p),
                    &[WantedTopic {
                        name: "t19".into(),
                        partitions: 1,
                        replication_factor: None,
                        config: Default::default()
                    }]
                )
                .await
        );
        println!(
            "  start {:?}",
            clients
                .commit_start_positions(&scram, &login(u, p), &q("g1", &["t1"]), &StartPosition::default())
                .await
        );
    }
    let plain2 = kafka("bootstrapServers: ['127.0.0.1:29094']");
    let t = Instant::now();
    println!(
        "plain to sasl: {:?} {:?}",
        clients.facts(&plain2, &none, &q("g1", &["t1"])).await,
        t.elapsed()
    );
    println!("clients {}", clients.count());
}

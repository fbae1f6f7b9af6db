//! Logs, `/livez`, `/readyz` and `/metrics` of the operator. In: what the controller observes. Out: text.
//! Decides nothing; exposes no secret.

use std::collections::{BTreeSet, HashMap};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use clap::ValueEnum;
use crds::status::condition;
use crds::{KafkaConsumerGroup, KafkaConsumerGroupStatus};
use kube::ResourceExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::kafka::model::KafkaView;
use crate::sync::lock;

/// Log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts logging to standard error. `RUST_LOG` sets levels; default: info for the operator, warnings for
/// libraries.
pub fn init_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,operator=info,kafka_consumer_operator=info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second call, as in tests, finds logging already started; that is no error.
    let _ = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    namespace: String,
    group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    namespace: String,
    group: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct PartitionLabels {
    namespace: String,
    group: String,
    topic: String,
    partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// The reasons of conditions Ready and Stalled.
type Reasons = [Option<String>; 2];

type SecondsGauge = Gauge<i64, AtomicI64>;

/// All metrics of the operator.
pub struct Metrics {
    registry: Registry,
    lag: Family<PartitionLabels, SecondsGauge>,
    desired: Family<GroupLabels, SecondsGauge>,
    dead_members: Family<GroupLabels, Counter>,
    ready: Family<ConditionLabels, SecondsGauge>,
    stalled: Family<ConditionLabels, SecondsGauge>,
    durations: Histogram,
    reconciles: Counter<u64, AtomicU64>,
    errors: Family<ErrorLabels, Counter>,
    offset_resets: Family<OutcomeLabels, Counter>,
    replays: Family<OutcomeLabels, Counter>,
    leader: SecondsGauge,
    clients: SecondsGauge,
    /// Lag series of each group, to remove them with the group or the partition.
    series: Mutex<HashMap<(String, String), BTreeSet<PartitionLabels>>>,
    /// The reasons of the two conditions of each group, to remove a series when its reason changes.
    conditions: Mutex<HashMap<(String, String), Reasons>>,
}

impl Default for Metrics {
    fn default() -> Self {
        // A healthy reconcile takes 10 ms of reads; one that waits for Kafka takes up to 10 s.
        let buckets = [
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ];
        let mut metrics = Self {
            registry: Registry::default(),
            lag: Family::default(),
            desired: Family::default(),
            dead_members: Family::default(),
            ready: Family::default(),
            stalled: Family::default(),
            conditions: Mutex::default(),
            durations: Histogram::new(buckets),
            reconciles: Counter::default(),
            errors: Family::default(),
            offset_resets: Family::default(),
            replays: Family::default(),
            leader: Gauge::default(),
            clients: Gauge::default(),
            series: Mutex::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "kcg_lag_records",
            "Records not yet committed",
            metrics.lag.clone(),
        );
        registry.register(
            "kcg_desired_replicas",
            "Desired number of workers",
            metrics.desired.clone(),
        );
        registry.register(
            "kcg_dead_members_removed",
            "Members of dead workers that were removed from the consumer group",
            metrics.dead_members.clone(),
        );
        registry.register(
            "kcg_group_ready",
            "1 if condition Ready of the group is True, otherwise 0, with the reason",
            metrics.ready.clone(),
        );
        registry.register(
            "kcg_group_stalled",
            "1 if condition Stalled of the group is True, otherwise 0, with the reason",
            metrics.stalled.clone(),
        );
        registry.register(
            "kcg_reconcile_duration_seconds",
            "Duration of one reconcile of a group",
            metrics.durations.clone(),
        );
        registry.register(
            "kcg_reconcile",
            "Reconciles of groups",
            metrics.reconciles.clone(),
        );
        registry.register(
            "kcg_reconcile_errors",
            "Failed reconciles, by stage",
            metrics.errors.clone(),
        );
        registry.register(
            "kcg_offset_resets",
            "KafkaOffsetResets that have ended, by outcome",
            metrics.offset_resets.clone(),
        );
        registry.register(
            "kcg_replays",
            "KafkaReplays that have ended, by outcome",
            metrics.replays.clone(),
        );
        registry.register(
            "kcg_leader",
            "1 if this process is the leader",
            metrics.leader.clone(),
        );
        registry.register("kcg_kafka_clients", "Open Kafka clients", metrics.clients.clone());
        metrics
    }
}

impl Metrics {
    /// Starts to measure a reconcile.
    pub fn reconcile(self: &Arc<Self>) -> Measure {
        Measure {
            metrics: self.clone(),
            started: Instant::now(),
        }
    }

    pub fn set_leader(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    pub fn set_kafka_clients(&self, open: usize) {
        self.clients.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Members of dead workers were removed from the consumer group.
    pub fn dead_members_removed(&self, namespace: &str, group: &str, members: usize) {
        let labels = GroupLabels {
            namespace: namespace.into(),
            group: group.into(),
        };
        let members = u64::try_from(members).unwrap_or(u64::MAX);
        self.dead_members.get_or_create(&labels).inc_by(members);
    }

    /// A KafkaReplay has ended.
    pub fn replay_ended(&self, outcome: &'static str) {
        self.replays.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A KafkaOffsetReset has ended.
    pub fn offset_reset_ended(&self, outcome: &'static str) {
        self.offset_resets.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Publishes the metrics of a group. Unknown lag has no series: it is not 0, and an old value would be
    /// wrong.
    pub fn observe(&self, group: &KafkaConsumerGroup, status: &KafkaConsumerGroupStatus, kafka: &KafkaView) {
        let (namespace, group) = (group.namespace().unwrap_or_default(), group.name_any());
        self.observe_conditions(&namespace, &group, status);
        let labels = GroupLabels {
            namespace: namespace.clone(),
            group: group.clone(),
        };
        self.desired
            .get_or_create(&labels)
            .set(status.replicas.unwrap_or(0).into());
        let lag = kafka.known().and_then(|facts| facts.lag.as_ref());
        let mut now = BTreeSet::new();
        for ((topic, partition), records) in lag.iter().flat_map(|lag| &lag.per_partition) {
            let labels = PartitionLabels {
                namespace: namespace.clone(),
                group: group.clone(),
                topic: topic.clone(),
                partition: *partition,
            };
            self.lag.get_or_create(&labels).set(*records);
            now.insert(labels);
        }
        let mut series = lock(&self.series);
        let before = series.insert((namespace, group), now.clone()).unwrap_or_default();
        for removed in before.difference(&now) {
            self.lag.remove(removed);
        }
    }

    /// Publishes the conditions of a group: one series each, with its current reason.
    pub fn observe_conditions(&self, namespace: &str, group: &str, status: &KafkaConsumerGroupStatus) {
        let find = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
        let now = [condition::READY, condition::STALLED].map(find);
        let reasons = now.map(|condition| condition.map(|condition| condition.reason.clone()));
        let key = (namespace.to_string(), group.to_string());
        let mut known = lock(&self.conditions);
        let before = known.insert(key, reasons.clone()).unwrap_or_default();
        for (family, (before, now)) in [&self.ready, &self.stalled]
            .into_iter()
            .zip(before.into_iter().zip(now))
        {
            let labels = |reason: &str| ConditionLabels {
                namespace: namespace.into(),
                group: group.into(),
                reason: reason.into(),
            };
            let reason = now.map(|now| now.reason.as_str());
            if let Some(before) = before.filter(|before| Some(before.as_str()) != reason) {
                family.remove(&labels(&before));
            }
            if let Some(now) = now {
                family
                    .get_or_create(&labels(&now.reason))
                    .set((now.status == "True").into());
            }
        }
    }

    /// Removes every series of a deleted group.
    pub fn forget(&self, namespace: &str, group: &str) {
        self.observe_conditions(namespace, group, &KafkaConsumerGroupStatus::default());
        lock(&self.conditions).remove(&(namespace.to_string(), group.to_string()));
        let (namespace, group) = (namespace.to_string(), group.to_string());
        let mut series = lock(&self.series);
        for labels in series
            .remove(&(namespace.clone(), group.clone()))
            .unwrap_or_default()
        {
            self.lag.remove(&labels);
        }
        let labels = GroupLabels { namespace, group };
        self.desired.remove(&labels);
        self.dead_members.remove(&labels);
    }

    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Measures one reconcile; counted when it is done.
#[must_use]
pub struct Measure {
    metrics: Arc<Metrics>,
    started: Instant,
}

impl Measure {
    pub fn done(self, failed: Option<&'static str>) {
        self.metrics
            .durations
            .observe(self.started.elapsed().as_secs_f64());
        self.metrics.reconciles.inc();
        if let Some(kind) = failed {
            self.metrics.errors.get_or_create(&ErrorLabels { kind }).inc();
        }
    }
}

/// What `/readyz` answers: ready, or the reason why not.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Readiness {
    /// Not ready, and why.
    pub fn not_ready(why: &str) -> Self {
        Self(Arc::new(Mutex::new(Some(why.into()))))
    }

    pub fn set_not_ready(&self, why: &str) {
        *lock(&self.0) = Some(why.into());
    }

    pub fn set_ready(&self) {
        *lock(&self.0) = None;
    }
}

/// Serves probes and metrics until the process ends.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
) -> std::io::Result<()> {
    axum::serve(listener, router(metrics, readiness)).await
}

fn router(metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(readiness)
        .merge(Router::new().route("/metrics", get(text)).with_state(metrics))
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    match &*lock(&readiness.0) {
        None => (StatusCode::OK, "ok\n".to_string()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests;

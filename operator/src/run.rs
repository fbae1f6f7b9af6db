//! Runs a subcommand; `run` is the controller from its start to its end. In: flags. Out: an exit code: 0
//! after SIGTERM, 1 if the lease was lost or the start failed. Connects the parts; decides nothing about
//! groups.

mod api;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crds::KafkaConsumerGroup;
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Error as QueueError;
use kube::{Api, Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::api::RunningApi;
use crate::args::{Args, Command, RunArgs};
use crate::controller;
use crate::controller::rollouts::Rollouts;
use crate::controller::scope::{Context, Requests, Scope};
use crate::controller::watches::ReconcileRequests;
use crate::group::validate::WorkerDefaults;
use crate::kafka::KafkaClients;
use crate::leader::Elector;
use crate::local;
use crate::operations::{offset_reset, replay};
use crate::telemetry::{self, Metrics, Readiness};

/// Time between two checks for a missing CRD.
const CRD_RETRY: Duration = Duration::from_secs(5);
/// Running reconciles get this long after SIGTERM: more than a healthy one needs, and together with the
/// release of the lease well below the 30 s after which Kubernetes kills the pod.
const SHUTDOWN: Duration = Duration::from_secs(15);

/// Runs the subcommand.
pub async fn dispatch(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Run(args) => run(*args).await,
        Command::Local(args) => local::run(*args).await,
        Command::Crd => {
            for crd in crds::crd::all() {
                print!("---\n{}", crds::crd::yaml(&crd)?);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::EmbeddedBroker(args) => local::run_embedded_broker(args),
        #[cfg(feature = "vrl")]
        Command::CompileProgram(args) => Ok(crate::compiler::process::serve(&args)?),
    }
}

/// Runs the controller until a signal comes or the lease is lost.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    telemetry::init_logs(args.log_format);
    let metrics = Arc::new(Metrics::default());
    let readiness = Readiness::not_ready("starting");
    let listener = TcpListener::bind(args.http_address)
        .await
        .with_context(|| format!("cannot listen on --http-address {}", args.http_address))?;
    tokio::spawn(telemetry::serve(listener, metrics.clone(), readiness.clone()));
    let stop = stop_on_signals()?;
    let config = Config::infer()
        .await
        .context("cannot find a cluster: run in a pod, or set KUBECONFIG to a kubeconfig file")?;
    let lease_namespace = args
        .lease_namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let api = RunningApi::open(args.api_listen, &config).await?;
    tokio::spawn(close(api.clone(), stop.clone()));
    let client = Client::try_from(config).context("cannot create the Kubernetes client")?;
    let identity = args.identity.clone().unwrap_or_else(host_name);
    let work = work(
        args,
        api,
        client.clone(),
        metrics.clone(),
        readiness,
        &lease_namespace,
        &identity,
        stop.clone(),
    );
    tokio::select! {
        outcome = work => outcome,
        () = second_signal(stop) => {
            tracing::warn!("second stop signal, exiting now");
            std::process::exit(130);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "called once, to keep `run` readable")]
async fn work(
    args: RunArgs,
    api: RunningApi,
    client: Client,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    lease_namespace: &str,
    identity: &str,
    stop: watch::Receiver<u8>,
) -> anyhow::Result<ExitCode> {
    let namespaces: Vec<Option<String>> = if args.namespaces.is_empty() {
        vec![None]
    } else {
        args.namespaces.iter().cloned().map(Some).collect()
    };
    tokio::select! {
        () = wait_for_crd(&client, namespaces[0].as_deref(), &readiness) => {}
        () = signals(stop.clone(), 1) => return Ok(ExitCode::SUCCESS),
    }
    // A standby is ready while it may take the lease: it can take over at any time, and a rollout of the
    // operator must not wait for the lease.
    readiness.set_ready();
    let lease = args.lease();
    let mut elector = Elector::new(client.clone(), lease_namespace, &lease, identity);
    if args.leader_election {
        tracing::info!(namespace = lease_namespace, identity, "waiting for the lease");
        api.stand_by(&client, &namespaces);
        tokio::select! {
            () = elector.acquire(|problem| match problem {
                Some(why) => readiness.set_not_ready(why),
                None => readiness.set_ready(),
            }) => {}
            () = signals(stop.clone(), 1) => return Ok(ExitCode::SUCCESS),
        }
    }
    metrics.set_leader(true);
    tracing::info!(identity, namespaces = ?args.namespaces, "active: reconciling groups");
    let refresh = Duration::from_secs(args.kafka_refresh_seconds);
    let kafka = KafkaClients::new(refresh);
    tokio::spawn(count_clients(kafka.clone(), metrics.clone()));
    let defaults = WorkerDefaults {
        image: args.worker_image.clone(),
        image_pull_policy: args.image_pull_policy.map(Into::into),
        reports: args.worker_reports.into(),
    };
    let context = Arc::new(Context::new(
        client,
        kafka,
        metrics,
        defaults,
        refresh,
        identity.into(),
        format!("{lease_namespace}/{lease}"),
        Rollouts::new(usize::try_from(args.max_concurrent_rollouts).unwrap_or(usize::MAX)),
    ));
    let scopes: Vec<(Arc<Scope>, Requests)> = namespaces
        .iter()
        .map(|namespace| Scope::start(context.clone(), namespace.as_deref()))
        .collect();
    let groups = scopes.iter().map(|(scope, _)| {
        let caches = &scope.caches;
        (caches.groups.clone(), caches.groups_filled.clone())
    });
    api.lead(groups.collect(), context.kafka.clone());
    let scopes = join_all(
        scopes
            .into_iter()
            .map(|(scope, requests)| drive(scope, requests, stop.clone())),
    );
    if !args.leader_election {
        scopes.await;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        _ = scopes => {
            elector.release().await;
            Ok(ExitCode::SUCCESS)
        }
        lost = hold(&mut elector) => {
            // From now on another operator may write, so this process must not, not even to finish a running
            // reconcile.
            tracing::error!("{lost}");
            std::process::exit(1);
        }
    }
}

/// Ends open streams at the first signal, so that they do not look lost.
async fn close(api: RunningApi, stop: watch::Receiver<u8>) {
    signals(stop, 1).await;
    api.close();
}

/// A future that borrows the elector only while it is polled, so that the lease can be released afterwards.
async fn hold(elector: &mut Elector) -> crate::leader::Lost {
    elector.hold().await
}

/// Serves the groups of a scope and what runs once beside them.
async fn drive(scope: Arc<Scope>, requests: Requests, stop: watch::Receiver<u8>) {
    let resets = offset_reset::run(scope.clone(), requests.resets, signals(stop.clone(), 1));
    let replays = replay::run(scope.clone(), requests.replays, signals(stop.clone(), 1));
    tokio::join!(
        until_deadline("resets", resets, stop.clone()),
        until_deadline("replays", replays, stop.clone()),
        drive_groups(scope, requests.groups, stop),
    );
}

/// Gives running reconciles of operations some time after the first signal.
async fn until_deadline(what: &str, operations: impl Future<Output = ()>, stop: watch::Receiver<u8>) {
    let deadline = signals(stop, 1).then(|()| tokio::time::sleep(SHUTDOWN));
    tokio::select! {
        () = operations => {}
        () = deadline => tracing::warn!("some {what} did not finish within {} s, exiting", SHUTDOWN.as_secs()),
    }
}

async fn drive_groups(scope: Arc<Scope>, requests: ReconcileRequests, stop: watch::Receiver<u8>) {
    let mut reconciles = std::pin::pin!(controller::run(scope, requests, signals(stop.clone(), 1)));
    let deadline = signals(stop, 1).then(|()| tokio::time::sleep(SHUTDOWN));
    let mut deadline = std::pin::pin!(deadline);
    loop {
        let reconcile = tokio::select! {
            reconcile = reconciles.next() => reconcile,
            () = &mut deadline => {
                tracing::warn!("some reconciles did not finish within {} s, exiting", SHUTDOWN.as_secs());
                return;
            }
        };
        match reconcile {
            None => return,
            Some(Ok((group, action))) => tracing::debug!(%group, ?action, "reconciled"),
            // The error policy has logged it, with the time of the next attempt.
            Some(Err(QueueError::ReconcilerFailed(..))) => {}
            Some(Err(QueueError::ObjectNotFound(group))) => tracing::debug!(%group, "deleted"),
            Some(Err(QueueError::QueueError(error))) => {
                tracing::warn!(%error, "watch failed, retrying; check that this ServiceAccount may list and watch the resource");
            }
            Some(Err(error)) => tracing::error!(%error, "the controller failed"),
        }
    }
}

/// Waits until the CRD is installed; until then there is nothing to reconcile.
async fn wait_for_crd(client: &Client, namespace: Option<&str>, readiness: &Readiness) {
    let groups: Api<PartialObjectMeta<KafkaConsumerGroup>> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    loop {
        let why = match groups.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                "the CRD kafkaconsumergroups.kafka-consumer.dev is not installed; install it: kafka-consumer-operator crd | kubectl apply --server-side -f -".to_string()
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                format!("not allowed to list kafkaconsumergroups: {}; grant it by RBAC", status.message)
            }
            Err(error) => format!("the API server does not respond: {error}"),
        };
        tracing::warn!("{why}");
        readiness.set_not_ready(&why);
        tokio::time::sleep(CRD_RETRY).await;
    }
}

async fn count_clients(kafka: KafkaClients, metrics: Arc<Metrics>) {
    loop {
        metrics.set_kafka_clients(kafka.count());
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// Counts SIGTERM and SIGINT: the first stops cleanly, the second exits at once.
fn stop_on_signals() -> anyhow::Result<watch::Receiver<u8>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let (sender, receiver) = watch::channel(0_u8);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stop signal received, shutting down");
            sender.send_modify(|count| *count = count.saturating_add(1));
        }
    });
    Ok(receiver)
}

async fn signals(mut stop: watch::Receiver<u8>, wanted: u8) {
    if stop.wait_for(|count| *count >= wanted).await.is_err() {
        // The counting task has ended, so no further signal can arrive.
        std::future::pending::<()>().await;
    }
}

async fn second_signal(stop: watch::Receiver<u8>) {
    signals(stop, 2).await;
}

/// In a pod this is the pod's name. Elsewhere two operators may share a host, so the process id distinguishes
/// them.
fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

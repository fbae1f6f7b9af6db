//! A worker process from its command line to its exit code: reads the settings, starts the HTTP server, the status
//! reporter and the watchers, hands over to the engine, and waits for it to end.

use std::{fmt, process::ExitCode};

use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{
    args::Args,
    consumer::handles::Handles,
    control::ControlWatcher,
    engine, exit,
    extensions::Extensions,
    health::snapshot::{SharedSnapshot, Snapshot},
    settings::Settings,
    telemetry::{self, Liveness, Metrics, http},
};

/// Why the process ends, in words and as its exit code.
struct Ended {
    code: u8,
    message: String,
}

impl Ended {
    fn new(code: u8, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

/// TimedPipeline a worker with the command line and environment of this process: all of `main` of a worker binary.
pub fn run(extensions: Extensions) -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nowhere to complain to when printing fails.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    if let Err(error) = telemetry::init(args.log_format, &args.log) {
        eprintln!("error: {error}");
        return ExitCode::from(exit::CONFIG);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start the runtime: {error}");
            return ExitCode::from(exit::STARTUP);
        }
    };
    let ended = runtime.block_on(work(args, extensions));
    // Whatever still runs, such as a request to a writer that does not answer, must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::from(exit::CLEAN),
        Err(Ended { code, message }) => {
            tracing::error!(exit_code = code, "{message}");
            ExitCode::from(code)
        }
    }
}

async fn work(args: Args, extensions: Extensions) -> Result<(), Ended> {
    // First of all: process 1 of a container ignores SIGTERM until somebody handles it.
    let shutdown = watch_signals(args.exit_on_stdin_eof)?;
    let settings = Settings::load(&args, &extensions)
        .await
        .map_err(|error| Ended::new(error.exit_code(), error))?;
    let listener = http::bind(args.http_address)
        .await
        .map_err(|error| Ended::new(exit::STARTUP, error))?;
    let address = listener
        .local_addr()
        .map_err(|error| Ended::new(exit::STARTUP, error))?;
    tracing::info!(
        worker = settings.worker_name, group = settings.group_id, topics = ?settings.topics, %address,
        "worker {} of group {} starts; /status is at http://{address}", settings.worker_name, settings.group_id,
    );
    let (snapshot, metrics, liveness) = (SharedSnapshot::default(), Metrics::new(), Liveness::new());
    snapshot.publish(Snapshot {
        worker: settings.worker_name.clone(),
        group_id: settings.group_id.clone(),
        ..Snapshot::default()
    });
    let shown = http::Shown {
        snapshot: snapshot.clone(),
        metrics: metrics.clone(),
        liveness: liveness.clone(),
    };
    tokio::spawn(http::serve(listener, shown, std::future::pending()));

    let mut control = ControlWatcher::new(args.control_path());
    let (send_paused, paused) = watch::channel(control.read().unwrap_or_default().paused);
    tokio::spawn(control.run(send_paused));

    let (stop_reporter, reporter) = report(&args, &settings, &snapshot).await;
    let result = engine::run(
        settings,
        Handles {
            snapshot,
            metrics,
            liveness,
            paused,
            shutdown,
        },
    )
    .await;
    drop(stop_reporter);
    // Bounded by the reporter itself.
    let _ = reporter.await;
    match result {
        Ok(()) => {
            tracing::info!("stopped: everything begun is finished and committed");
            Ok(())
        }
        Err(error) => Err(Ended::new(error.exit_code(), error)),
    }
}

/// Starts the status reporter, when wanted; dropping the sender makes it send its last report and end.
#[cfg(feature = "kubernetes")]
async fn report(
    args: &Args,
    settings: &Settings,
    snapshot: &SharedSnapshot,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    use crate::status::StatusReporter;

    let (stop, stopped) = oneshot::channel::<()>();
    if !args.reports_status() {
        return (stop, tokio::spawn(async {}));
    }
    let (
        Settings {
            namespace,
            name,
            worker_name,
            ..
        },
        interval,
    ) = (settings, args.status_interval());
    let task = match StatusReporter::connect(namespace, name, worker_name, snapshot.clone(), interval).await {
        Ok(reporter) => tokio::spawn(reporter.run(async move {
            let _ = stopped.await;
        })),
        Err(error) => {
            tracing::warn!("status is not reported, consumption goes on: {error}");
            tokio::spawn(async {})
        }
    };
    (stop, task)
}

#[cfg(not(feature = "kubernetes"))]
async fn report(
    args: &Args,
    _: &Settings,
    _: &SharedSnapshot,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    if args.reports_status() {
        tracing::warn!("status is not reported: this worker was built without the feature kubernetes");
    }
    (oneshot::channel().0, tokio::spawn(async {}))
}

/// The flag that SIGTERM, SIGINT and, when asked for, the end of stdin set. A second signal ends the process at once.
fn watch_signals(stdin: bool) -> Result<watch::Receiver<bool>, Ended> {
    let (send, shutdown) = watch::channel(false);
    let unhandled = |error| Ended::new(exit::STARTUP, format!("cannot handle signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(unhandled)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unhandled)?;
    if stdin {
        let send = send.clone();
        // Not tokio's stdin: its blocked read would outlive the runtime.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            tracing::info!("stdin has ended");
            send.send_replace(true);
        });
    }
    tokio::spawn(async move {
        for signals in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if signals > 0 {
                tracing::error!(
                    exit_code = exit::STUCK,
                    "told twice to stop: ending now; what is not committed is read again by the next owner"
                );
                std::process::exit(exit::STUCK.into());
            }
            send.send_replace(true);
        }
    });
    Ok(shutdown)
}

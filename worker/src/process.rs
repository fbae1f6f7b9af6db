//! A worker process from its command line to its exit code: loads the settings, starts the HTTP server, the
//! status reporter and the watchers, then runs the engine until it ends.

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

/// Why the process ends: a message and the exit code.
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

/// Runs a worker with the command line and the environment of this process until it stops. This is all that
/// `main` of a worker binary has to call; [`Extensions`] has an example.
///
/// Returns the exit code, one of [`exit`]. A second stop signal exits the process at once with
/// [`exit::STUCK`]. Call it once per process and outside of any async runtime, because it starts one.
///
/// `main` must return the code: Kubernetes takes 0 for success, and a replay for the end of its plan.
#[must_use = "main must return the exit code; with 0 a failed worker looks like one that is done"]
pub fn run(extensions: Extensions) -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // If printing fails, there is nowhere to report it.
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
            tracing::error!("cannot start the async runtime: {error}");
            return ExitCode::from(exit::STARTUP);
        }
    };
    let ended = runtime.block_on(work(args, extensions));
    // Tasks that are still running, such as a request to a writer that does not answer, must not delay the
    // exit.
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
    // This comes first: process 1 of a container ignores SIGTERM until the process has a handler for it.
    let shutdown = watch_signals(args.exit_on_stdin_eof)?;
    let (settings, parts) = Settings::load(&args, &extensions)
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
        "starting worker {} of group {}; its status page is http://{address}/status", settings.worker_name, settings.group_id,
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
        parts,
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
    // The reporter limits how long its last report takes.
    let _ = reporter.await;
    match result {
        Ok(()) => {
            tracing::info!("stopped: all records in flight are finished and committed");
            Ok(())
        }
        Err(error) => Err(Ended::new(error.exit_code(), error)),
    }
}

/// Starts the status reporter if it is enabled. When the sender is dropped, the reporter sends its last
/// report and ends.
#[cfg(feature = "kubernetes")]
async fn report(
    args: &Args,
    settings: &Settings,
    snapshot: &SharedSnapshot,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    use crate::status::StatusReporter;

    let (stop, stopped) = oneshot::channel::<()>();
    if !args.report_status {
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
            tracing::warn!("status reports are disabled, consumption continues: {error}");
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
    if args.report_status {
        tracing::warn!("status reports are disabled: this worker was built without the feature kubernetes");
    }
    (oneshot::channel().0, tokio::spawn(async {}))
}

/// The flag that SIGTERM and SIGINT set and, if `stdin` is true, the end of stdin. A second signal exits the
/// process at once.
fn watch_signals(stdin: bool) -> Result<watch::Receiver<bool>, Ended> {
    let (send, shutdown) = watch::channel(false);
    let unhandled = |error| Ended::new(exit::STARTUP, format!("cannot handle signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(unhandled)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unhandled)?;
    if stdin {
        let send = send.clone();
        // Not tokio's stdin, because its blocked read would keep the runtime from shutting down.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            tracing::info!("stdin has ended, stopping");
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
                    "second stop signal, exiting now; the next owner reads the uncommitted records again"
                );
                std::process::exit(exit::STUCK.into());
            }
            send.send_replace(true);
        }
    });
    Ok(shutdown)
}

//! Local mode: runs the groups of a file or folder without Kubernetes. The same resources, the checks of the
//! API server, the decisions of the controller; workers are processes of this machine.
//!
//! ```text
//! files -> load -> validate -> prepare -> local_group -> supervise -> worker processes
//!            ^                              ^                        │ /status
//!          watch                    kafka::KafkaClients           screen, manage (the API)
//! ```
//!
//! `reset` needs none of that: it asks Kafka, plans, and commits. `replay` plans, and supervises workers that end by
//! themselves.

mod args;
mod base64;
mod demo;
mod embedded;
mod load;
mod local_group;
mod manage;
mod plan;
mod prepare;
mod rates;
mod refresh;
mod replay;
mod reset;
mod screen;
mod session;
mod source;
mod stop;
mod supervise;
mod table;
pub mod validate;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;

pub use args::{ApiListen, EmbeddedBrokerArgs, LocalArgs, Operation};

use crate::compiler::Programs;
use screen::Screen;
use session::{INVALID, Session};
use stop::StopSignals;

/// Runs until Ctrl-C or SIGTERM, or in demo mode until all records are processed.
pub async fn run(args: LocalArgs) -> anyhow::Result<ExitCode> {
    match &args.operation {
        Some(Operation::Reset(args)) => return reset::run(args).await,
        Some(Operation::Replay(args)) => return replay::run(args).await,
        None => {}
    }
    if args.check {
        return Ok(check(&args).await);
    }
    if args.demo {
        return demo::run(args).await;
    }
    let mut session = match Session::open(&args, Screen::new()).await {
        Ok(session) => session,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(ExitCode::from(INVALID));
        }
    };
    let mut stop = StopSignals::new()?;
    let mut ticks = tokio::time::interval(session::TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.received() {
        ticks.tick().await;
        session.tick().await;
    }
    session.stop(|| stop.received()).await;
    Ok(ExitCode::SUCCESS)
}

/// The hidden subcommand `embedded-broker`; blocks until standard input closes.
pub fn run_embedded_broker(args: EmbeddedBrokerArgs) -> anyhow::Result<ExitCode> {
    embedded::serve(&args)
}

/// Checks the files and prints every problem. Secrets need not exist: the API server does not check them
/// either.
async fn check(args: &LocalArgs) -> ExitCode {
    let loaded = load::load(&args.files, &args.source.namespace);
    let (rules, programs) = (validate::Rules::new(), Arc::new(Programs::of_this_program()));
    let mut problems = loaded.problems.clone();
    for document in &loaded.groups {
        let folders = args.source.folders();
        let checked = session::documents::check(
            &rules,
            document,
            None,
            async |group| {
                let found = prepare::programs(&group, &loaded, &folders);
                let sources = found.iter().map(|(_, source)| source.clone());
                programs
                    .prepare_all(&args.source.namespace, sources.collect())
                    .await;
                prepare::without_secrets(&found, &programs)?;
                prepare::given_postgres_urls(&group, &loaded, &folders)
            },
            &args.source.namespace,
        )
        .await;
        match checked {
            Ok(()) => println!("{}: valid", document.origin),
            Err(problem) => problems.push(problem),
        }
    }
    loaded.notes.iter().for_each(|note| println!("{note}"));
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INVALID)
    }
}

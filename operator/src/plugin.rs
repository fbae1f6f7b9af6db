//! The kubectl plugin `kubectl kcg`. In: arguments and a kubeconfig. Out: text, changes of resources in the name of
//! the user, and an exit code: 0 all is well or done, 1 not well or not reached, 2 an error. Needs nothing but the
//! API server. Never reads a Secret.
//!
//! ```text
//! args -> cluster (client) -> view (a group) -> overview, detail, partitions, rates (pure) -> terminal
//!            └─ changes, reset, logs, report (client): patches, KafkaOffsetReset, pod logs, an archive
//! ```

mod advice;
mod args;
mod changes;
mod cluster;
mod complete;
mod detail;
mod error;
mod logs;
mod overview;
mod partitions;
mod rates;
mod report;
mod reset;
mod status;
mod terminal;
mod text;
mod top;
mod view;
mod workers;

use std::io::ErrorKind;
use std::process::ExitCode;

pub use args::Args;

use args::Command;
use cluster::Cluster;
use error::Error;
use terminal::Terminal;

/// All is well, or what was asked for is done.
const DONE: u8 = 0;
/// The group is not well, or did not reach what was asked for.
const NOT_WELL: u8 = 1;
/// Something could not be read or changed, or the arguments are wrong. Wrong flags have this code, too.
const FAILED: u8 = 2;

/// Runs a command.
pub async fn run(args: Args) -> ExitCode {
    let mut terminal = Terminal::standard();
    match execute(args, &mut terminal).await {
        Ok(code) => ExitCode::from(code),
        // The reader, such as `head`, has what it wanted.
        Err(Error::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(DONE),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

async fn execute(args: Args, terminal: &mut Terminal) -> Result<u8, Error> {
    match &args.command {
        Command::Version => {
            terminal.print(&format!("kubectl-kcg {}", env!("CARGO_PKG_VERSION")))?;
            Ok(DONE)
        }
        Command::Completion => {
            terminal.print(complete::SCRIPT)?;
            Ok(DONE)
        }
        Command::Complete { words } => complete::run(words, terminal).await,
        _ => {
            let cluster = Cluster::connect(&args.target).await?;
            command(&cluster, args.command, terminal).await
        }
    }
}

async fn command(cluster: &Cluster, command: Command, terminal: &mut Terminal) -> Result<u8, Error> {
    match command {
        Command::Status(args) => status::run(cluster, &args, terminal).await,
        Command::Partitions(args) => partitions::run(cluster, &args, terminal).await,
        Command::Top(args) => top::run(cluster, &args, terminal).await,
        Command::Pause(args) => changes::run(cluster, changes::PAUSE, &args, terminal).await,
        Command::Resume(args) => changes::run(cluster, changes::RESUME, &args, terminal).await,
        Command::Stop(args) => changes::run(cluster, changes::STOP, &args, terminal).await,
        Command::Start(args) => changes::run(cluster, changes::START, &args, terminal).await,
        Command::Restart(args) => workers::restart(cluster, &args, terminal).await,
        Command::Scale(args) => workers::scale(cluster, &args, terminal).await,
        Command::Reset(args) => reset::run(cluster, &args, terminal).await,
        Command::Logs(args) => logs::run(cluster, &args, terminal).await,
        Command::Report(args) => report::run(cluster, &args, terminal).await,
        // Answered before the cluster is asked.
        Command::Version | Command::Completion | Command::Complete { .. } => Ok(DONE),
    }
}

#[cfg(test)]
mod tests;

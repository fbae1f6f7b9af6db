//! Compiles one program in a process of its own. One part is the hidden subcommand that compiles; the other
//! starts it. In: a source and limits. Out: an [`Outcome`]. The process limits itself, and its parent kills
//! it when it does not.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use crds::vrl_program::{InvalidProgram, Limits, compile_within};
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Name of the subcommand.
pub const SUBCOMMAND: &str = "compile-program";
/// Exit codes of the subcommand. Others, and signals except [`CRASHES`], say nothing about the program.
const INVALID: u8 = 10;
const TOO_SLOW: u8 = 11;
const FAILED: u8 = 12;

/// SIGABRT, SIGBUS and SIGSEGV: the compiler itself has crashed. Any other signal comes from outside, for
/// example from the kernel when the memory of all is used up.
const CRASHES: [i32; 3] = [6, 7, 11];

/// A process that has not ended after this long is killed. Its limit is CPU time, so that a busy machine does
/// not refuse programs; this is 12 times the longest.
pub const KILL_AFTER: Duration = Duration::from_secs(60);

/// Flags of the hidden subcommand.
#[derive(Args, Clone, Debug)]
pub struct CompileArgs {
    #[arg(long)]
    cpu_milliseconds: u64,
    #[arg(long)]
    memory_bytes: u64,
}

/// What a process found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Valid,
    Invalid(String),
    /// With more time it may compile.
    TooSlow(String),
}

/// Why nothing was found out.
#[derive(Debug, Error)]
pub enum Error {
    #[error("cannot run the compiler's process: {0}")]
    Process(#[from] std::io::Error),
    #[error("the compiler's process did not end within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the compiler's process has ended without a result ({0})")]
    Ended(std::process::ExitStatus),
}

/// The hidden subcommand: compiles the program on standard input and writes what is wrong with it to standard
/// output.
pub fn serve(args: &CompileArgs) -> std::io::Result<ExitCode> {
    let mut source = String::new();
    std::io::stdin().lock().read_to_string(&mut source)?;
    let limits = Limits {
        cpu: Duration::from_millis(args.cpu_milliseconds),
        memory: args.memory_bytes,
    };
    let Err(error) = compile_within(&source, limits) else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut stdout = std::io::stdout();
    write!(stdout, "{error}")?;
    stdout.flush()?;
    Ok(ExitCode::from(match error {
        InvalidProgram::TooSlow { .. } => TOO_SLOW,
        InvalidProgram::Failed(_) => FAILED,
        _ => INVALID,
    }))
}

/// Compiles `source` in a process that runs `program`, and is killed after `kill_after`.
pub async fn compile(
    program: &Path,
    source: &str,
    limits: Limits,
    kill_after: Duration,
) -> Result<Outcome, Error> {
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .args(["--cpu-milliseconds", &limits.cpu.as_millis().to_string()])
        .args(["--memory-bytes", &limits.memory.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Ctrl-C must reach only the operator.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let run = async {
        if let Some(mut stdin) = stdin {
            // A process that ends early closes the pipe; its exit code says why.
            let written = stdin.write_all(source.as_bytes()).await;
            if let Err(error) = written
                && error.kind() != std::io::ErrorKind::BrokenPipe
            {
                return Err(error);
            }
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(kill_after, run)
        .await
        .map_err(|_| Error::Timeout(kill_after))??;
    let message = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(match output.status.code() {
        Some(0) => Outcome::Valid,
        Some(code) if code == i32::from(INVALID) => Outcome::Invalid(message),
        Some(code) if code == i32::from(TOO_SLOW) => Outcome::TooSlow(message),
        _ if output
            .status
            .signal()
            .is_some_and(|signal| CRASHES.contains(&signal)) =>
        {
            Outcome::Invalid(format!(
                "the VRL program crashes the compiler ({}); simplify it, or split it into several transforms",
                output.status
            ))
        }
        _ => return Err(Error::Ended(output.status)),
    })
}

//! The binary `kubectl-kcg`, the kubectl plugin: parses its arguments and runs. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use operator::plugin::{Args, run};

#[tokio::main]
async fn main() -> ExitCode {
    run(Args::parse()).await
}

//! The binary `kafka-consumer-operator`: parses its arguments and runs. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use operator::args::Args;
use operator::run::dispatch;

#[tokio::main]
async fn main() -> ExitCode {
    dispatch(Args::parse()).await.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

//! The binary `soak`: see `harness::soak`. Started by `make soak`, which gives it a Kafka.

use std::process::ExitCode;

fn main() -> ExitCode {
    match harness::soak::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The binary `soak`: see `harness::chaos::soak`. Started by `make soak`, which gives it a Kafka.

use std::process::ExitCode;

fn main() -> ExitCode {
    match harness::chaos::soak::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

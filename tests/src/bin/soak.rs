//! The binary `soak`: see `harness::chaos::soak`. `make soak` starts it with a Kafka broker.

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

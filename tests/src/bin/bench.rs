//! The binary `bench`: see `harness::bench`. `make bench` starts it with a Kafka broker.

use std::process::ExitCode;

fn main() -> ExitCode {
    match harness::bench::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

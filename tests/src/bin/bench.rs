//! The binary `bench`: see `harness::bench`. Started by `make bench`, which gives it a Kafka.

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

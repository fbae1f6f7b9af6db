//! The binary `bench-operator`: see `harness::bench::operator`. `make bench-operator` starts it with a
//! cluster.

use std::process::ExitCode;

fn main() -> ExitCode {
    match harness::bench::operator::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The released worker: no transforms and writers but the built-in ones.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::run(worker::Registry::new())
}

//! The released worker: only the built-in transforms and writers.

use std::process::ExitCode;

fn main() -> ExitCode {
    kafka_consumer_worker::run(kafka_consumer_worker::Extensions::new())
}

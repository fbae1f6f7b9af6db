//! The released worker: no transforms and writers but the built-in ones.

use std::process::ExitCode;

fn main() -> ExitCode {
    kafka_consumer_worker::run(kafka_consumer_worker::Extensions::new())
}

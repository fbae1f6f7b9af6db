//! The binary `bench`: see `harness::bench`. Started by `make bench`, which gives it a Kafka.

fn main() -> anyhow::Result<()> {
    harness::bench::main()
}

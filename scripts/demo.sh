#!/usr/bin/env bash
# demo.sh [ARGUMENT...]: builds the operator and the worker and runs a demo on this machine: an in-memory
# broker, 100,000 orders (some of them poison), workers, a live table, a summary. Arguments go to `local
# --demo`; --stay keeps it running. Settings from the environment:
#   PROFILE  cargo's profile, default dev: it compiles faster than release, and `make test` and `make cluster`
#            use the same
. "$(dirname "$0")/lib.sh"

profile=${PROFILE:-dev}
folder=$profile
[[ $profile != dev ]] || folder=debug
need_libraries
say "Building the operator and the worker; the first build takes several minutes ..."
cargo build --profile "$profile" --locked --workspace \
    --bin kafka-consumer-operator --bin kafka-consumer-worker
exec "$CARGO_TARGET_DIR/$folder/kafka-consumer-operator" local --demo "$@"

#!/usr/bin/env bash
# demo.sh [ARGUMENT...]: builds operator and worker and shows the whole path on this machine: a broker in memory,
# 100,000 orders of which some are poison, workers, a live table, a summary. Arguments go to `local --demo`. Settings
# from the environment: PROFILE, cargo's profile, default release.
. "$(dirname "$0")/lib.sh"

profile=${PROFILE:-release}
folder=$profile
[[ $profile != dev ]] || folder=debug
need_libraries
say "Building the operator and the worker; the first time this takes some minutes ..."
cargo build --profile "$profile" --locked --workspace \
    --bin kafka-consumer-operator --bin kafka-consumer-worker
exec "$CARGO_TARGET_DIR/$folder/kafka-consumer-operator" local --demo "$@"

#!/usr/bin/env bash
# demo.sh [ARGUMENT...]: builds the operator and the worker and runs a demo on this machine: an in-memory
# broker, 100,000 orders (some of them poison), workers, a live table, a summary. Arguments go to `local
# --demo`; --stay keeps it running. Settings from the environment:
#   PROFILE  cargo's profile; default: release or dev if they are built already, else demo, which compiles fastest
. "$(dirname "$0")/lib.sh"

profile=${PROFILE:-$(built_profile demo)}
folder=$(programs_of "$profile")
need_libraries
if [[ -x $folder/kafka-consumer-operator ]]; then
    say "Building what has changed in the operator and the worker ..."
else
    say "Building the operator and the worker. The first build takes 4 to 8 minutes on 2 cores ..."
fi
cargo build --profile "$profile" --locked --workspace \
    --bin kafka-consumer-operator --bin kafka-consumer-worker
exec "$folder/kafka-consumer-operator" local --demo "$@"

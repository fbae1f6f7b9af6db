#!/usr/bin/env bash
# soak-tracker.sh: runs a million random schedules of the offset tracker and of the commit metadata:
# deliveries and completions in any order. The same property tests as in `make unit`, which runs 256
# schedules. Takes less than a minute once they are built. Settings from the environment:
#   PROPTEST_CASES   number of schedules, default 1000000
. "$(dirname "$0")/lib.sh"

need_libraries
export PROPTEST_CASES=${PROPTEST_CASES:-1000000}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --workspace --locked --lib -- offsets:: | tee "$log"
# Without this check, a renamed test would be skipped silently.
grep -q '^test offsets::tests::the_watermark_is_safe_and_live \.\.\. ok$' "$log" ||
    die "the property test of the offset tracker did not run: it must be in worker/src/offsets.rs under this name"
say "$PROPTEST_CASES schedules: no offset past an unfinished record"

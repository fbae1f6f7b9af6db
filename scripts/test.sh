#!/usr/bin/env bash
# test.sh [unit|e2e]: runs the tests, both kinds without an argument. The last line is "N passed, N failed"
# for all of them; the exit code is an error if any test failed. Settings from the environment:
#   E2E_THREADS  end-to-end tests that run at the same time, default 2
#   FILTER   run only end-to-end tests whose name contains this
#   PROFILE  profile of the tested images, default release: the tested build is the released one
#   KCG_EXTERNAL=1 KUBECONFIG=... KAFKA_BOOTSTRAP_SERVERS=...  use that cluster instead of creating one
. "$(dirname "$0")/lib.sh"

what=${1:-all}
[[ $what =~ ^(all|unit|e2e)$ ]] || die "usage: test.sh [unit|e2e]"
# Separate network and folders, so that the tests do not touch the cluster of `make cluster`.
export KCG_STATE=${KCG_STATE:-/tmp/kcg-test} KCG_NETNS=${KCG_NETNS:-kcg-test}

logs=$CARGO_TARGET_DIR/e2e-logs
results=$(mktemp)
passed=0
failed=0
cluster=0

clean_up() {
    rm -f "$results"
    if ((cluster)); then
        if ((failed)); then
            rm -rf "$logs"
            cp -r "$KCG_STATE/logs" "$logs" 2>/dev/null && say "logs of the cluster: $logs"
        fi
        tests/cluster/down.sh || true
    fi
}
# Whatever happens, this removes the cluster and prints the summary as the last line.
finish() {
    local status=$?
    trap - EXIT
    if ((status != 0 && failed == 0)); then failed=1; fi
    clean_up
    say "$passed passed, $failed failed"
    ((failed == 0)) || exit 1
}
trap finish EXIT
trap 'exit 130' INT TERM

# step NAME COMMAND...: a failing step counts as one failed test and ends the run.
step() {
    local name=$1 started=$SECONDS
    shift
    say "== $name"
    if ! "$@"; then
        failed=$((failed + 1))
        say "== $name: FAILED after $((SECONDS - started)) s"
        exit 1
    fi
    say "== $name: $((SECONDS - started)) s"
}

# tests NAME COMMAND...: adds up the result lines of cargo test. A run that fails without a failed test (a
# compile error, a crash) counts as one failed test.
tests() {
    local name=$1 started=$SECONDS status=0 run_passed run_failed
    shift
    say "== $name"
    "$@" 2>&1 | tee "$results" || status=$?
    read -r run_passed run_failed < <(awk '/^test result: / { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$results")
    if ((status != 0 && run_failed == 0)); then run_failed=1; fi
    if ((status == 0 && run_passed == 0)); then
        say "no test ran"
        run_failed=1
    fi
    passed=$((passed + run_passed))
    failed=$((failed + run_failed))
    say "== $name: $run_passed passed, $run_failed failed, $((SECONDS - started)) s"
}

need_libraries
# First, because the unit tests of the PostgreSQL writer start their own server.
if [[ $what != unit ]]; then
    step "tools of the test cluster" tests/cluster/setup.sh
fi
if [[ $what != e2e ]]; then
    mapfile -t targets < <(test_targets crds operator worker)
    tests "unit tests" cargo test --workspace --locked --no-fail-fast --lib --bins "${targets[@]}"
    tests "examples in the documentation" cargo test --workspace --locked --no-fail-fast --doc
fi
if [[ $what != unit ]]; then
    find_helm
    # Built before the cluster is up: a compile error is found before the cluster starts, and the build does
    # not slow tests down.
    mapfile -t targets < <(test_targets tests)
    step "building the end-to-end tests" cargo test --workspace --locked --no-run "${targets[@]}"
    step "building the worker with seeded bugs" build_seeded_worker
    # Tests of local mode run the programs themselves. Built after the seeded bugs, so that no other program
    # has them.
    step "building the programs" cargo build --workspace --locked --bins
    step "images" deploy/image.sh
    cluster=1
    step "cluster" tests/cluster/up.sh
    if [[ ${KCG_EXTERNAL:-} != 1 ]]; then
        step "images into the cluster" tests/cluster/load-image.sh "$CARGO_TARGET_DIR"/image/*.tar
    fi
    # Most tests wait for something nearly all of the time. The harness keeps those apart that disturb others.
    tests "end-to-end tests" tests/cluster/exec.sh cargo test --workspace --locked --offline --no-fail-fast \
        "${targets[@]}" -- --test-threads="${E2E_THREADS:-2}" ${FILTER:+"$FILTER"}
fi

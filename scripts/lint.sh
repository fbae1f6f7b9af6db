#!/usr/bin/env bash
# lint.sh [STEP...]: everything that can be said about the code without running it; without arguments all steps:
#   format clippy rules generated chart licences shell
# All steps run, also after one has failed.
. "$(dirname "$0")/lib.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
# complain TEXT [LINES]: one broken rule.
complain() {
    printf 'error: %s\n' "$1"
    [[ -z ${2:-} ]] || printf '    %s\n' "${2//$'\n'/$'\n'    }"
    bad=1
}

format() { cargo fmt --all --check; }

clippy() {
    need_libraries
    cargo clippy --workspace --all-targets --locked -- -D warnings
}

# --- rules of the house (ARCHITECTURE.md) ---------------------------------------------------------------

# sources FOLDER...: the .rs files in git or about to be.
sources() { git ls-files --cached --others --exclude-standard -- "$@" | grep '\.rs$' | while read -r file; do
    [[ ! -f $file ]] || printf '%s\n' "$file"
done; }

# only_in PATTERN WHERE FOLDER WHY: PATTERN may occur below FOLDER only in files whose path matches WHERE.
only_in() {
    local found
    found=$(sources "$3" | grep -Ev "$2" | xargs -r grep -nE "$1" /dev/null | grep -vE '^[^:]+:[0-9]+:\s*//' || true)
    [[ -z $found ]] || complain "$4" "$found"
}

# not_in FILE PATTERN WHY: FILE has no line with PATTERN.
not_in() {
    local found
    found=$(grep -nE "$2" "$1" || true)
    [[ -z $found ]] || complain "$3" "$1: $found"
}

rules() {
    bad=0
    local found file name parent
    # Directions: crds <- operator, crds <- worker, all <- tests.
    not_in crds/Cargo.toml '^(rdkafka|tokio|reqwest|operator|worker)\b|^kube\b.*"(client|runtime)"' \
        "crds is pure data: no client, no tokio, no rdkafka"
    not_in operator/Cargo.toml '^(worker|kafka-consumer-worker)\b' \
        "the operator must not depend on the worker; they meet in WorkerConfig and in status.workers"
    not_in worker/Cargo.toml '^(operator|kafka-consumer-operator)\b' \
        "the worker must not depend on the operator; they meet in WorkerConfig and in status.workers"
    only_in '\b(kube|k8s_openapi)::' '^worker/src/status(\.rs$|/)' worker/src "kube belongs to status.rs in the worker"
    only_in '\brdkafka::' '^operator/src/kafka(\.rs$|/)' operator/src "rdkafka belongs to kafka in the operator"
    only_in '\banyhow\b' '^operator/src/((main|run)\.rs|local(\.rs|/.*))$' operator/src \
        "anyhow belongs to the ends of the program: main.rs, run.rs, local; the stages have error types of their own"
    # unsafe lives in one module of the operator and one of the worker.
    only_in '\bunsafe\b|allow\(unsafe_code\)' "$UNSAFE_MODULES" . "unsafe belongs to the two modules that call librdkafka directly"
    found=$(sources . | grep '/mod\.rs$' || true)
    [[ -z $found ]] || complain "no mod.rs: write foo.rs beside foo/" "$found"
    while read -r file; do
        [[ $file == */tests.rs ]] || head -n 1 "$file" | grep -q '^//!' || complain "every module opens with //! (inputs, outputs, what it refuses to do): $file"
        # A file that no other names is not compiled, so nothing would tell that it rots.
        name=$(basename "$file" .rs)
        parent=$(dirname "$file")
        case $file in
            */src/lib.rs | */main.rs | */src/bin/* | */build.rs | */benches/*) continue ;;
        esac
        # A file right below tests/ is a crate of its own.
        [[ $(basename "$parent") != tests || $parent == */src/* ]] || continue
        if [[ $parent == */src ]]; then
            parent="$parent/lib.rs $parent/main.rs"
        else
            parent="$parent.rs $parent/main.rs"
        fi
        # shellcheck disable=SC2086 # one or two files
        grep -qsE "^\s*(pub(\([a-z: ]+\))? )?mod $name;" $parent || complain "no module names $file"
    done < <(sources crds operator worker tests | grep -E '/(src|tests)/')
    return $bad
}

# The modules that call librdkafka through its C interface; the third is the yardstick of `make bench` and ships nowhere.
UNSAFE_MODULES='^(worker/src/kafka/ffi|operator/src/kafka/ffi|tests/src/bench/raw)\.rs$'

# --- generated files, chart -----------------------------------------------------------------------------

generated() {
    bad=0
    local file
    scripts/generate.sh "$work/generated"
    for file in crds/kafkaconsumergroups.yaml "$CHART/files/kafkaconsumergroups.yaml" deploy/install.yaml; do
        diff -u "$file" "$work/generated/$file" >"$work/diff" ||
            complain "$file is out of date: run 'make generate' and commit the result" "$(head -n 40 "$work/diff")"
    done
    return $bad
}

chart() {
    bad=0
    find_helm
    local values rendered=$work/rendered.yaml
    for values in "$CHART"/values.yaml "$CHART"/ci/*.yaml; do
        "$HELM" lint --quiet --strict --kube-version "$KUBE_VERSION" "$CHART" --values "$values" ||
            complain "helm lint with $values"
        render --values "$values" || complain "helm template with $values"
        # What a template leaves behind where a value is missing.
        ! grep -nE ':\s*(<nil>|null)$|<no value>' "$rendered" || complain "a value is missing in the chart with $values"
    done
    # What the modes promise.
    render --values "$CHART/ci/namespaces-values.yaml"
    ! grep -E '^kind: ClusterRole' "$rendered" || complain "with watchNamespaces there must be no cluster-wide role"
    render --set crds.install=false
    ! grep -E '^kind: CustomResourceDefinition' "$rendered" || complain "crds.install=false must leave out the CRD"
    render
    grep -q 'helm.sh/resource-policy: keep' "$rendered" || complain "the CRD must be kept when the release is uninstalled"
    # What must be refused.
    for values in replica=2 image.pullPolicy=Sometimes image.digest=sha256:abc watchNamespaces=shop replicas=-1 \
        replicas=2,leaderElection.enabled=false serviceAccount.create=false \
        metrics.serviceMonitor.enabled=true,metrics.service.enabled=false; do
        ! render --set "$values" 2>/dev/null || complain "the chart takes the wrong value $values"
    done
    return $bad
}

# render ARGUMENT...: the chart as Helm would install it, into $rendered of the caller.
render() { "$HELM" template kco "$CHART" --namespace kco --kube-version "$KUBE_VERSION" "$@" >"$rendered"; }

# --- licences, bans, sources ----------------------------------------------------------------------------

licences() {
    cargo_tool cargo-deny "$CARGO_DENY_VERSION" cargo-deny "about 10 minutes on 2 cores"
    # Also the crates of other platforms, which no build here has fetched. Costs nothing when all are there.
    cargo fetch --locked --quiet
    # Advisories are not checked here: their database is not in the repository, and lint works without a network.
    "$cargo_tool/cargo-deny" --offline --locked check --hide-inclusion-graph licenses bans sources
}

shell() {
    local -a files
    mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run)
    printf '%s\n' "${files[@]}" | xargs -n 1 bash -n
    if command -v shellcheck >/dev/null; then
        shellcheck --external-sources --source-path=SCRIPTDIR "${files[@]}"
    else
        say "shellcheck is not installed (apt-get install shellcheck): only the syntax was checked"
    fi
}

# --- run ------------------------------------------------------------------------------------------------

all=(format clippy rules generated chart licences shell)
wanted=("$@")
((${#wanted[@]})) || wanted=("${all[@]}")
failed=()
for step in "${wanted[@]}"; do
    [[ " ${all[*]} " == *" $step "* ]] || die "no step '$step'; there are: ${all[*]}"
    started=$SECONDS
    say "== lint: $step"
    status=0
    # A subshell that stops at the first error: `if` and `||` would switch that off.
    set +e
    (
        set -e
        "$step"
    )
    status=$?
    set -e
    if ((status)); then
        failed+=("$step")
        say "== lint: $step FAILED ($((SECONDS - started)) s)"
    else
        say "== lint: $step ok ($((SECONDS - started)) s)"
    fi
done
((${#failed[@]} == 0)) || die "lint: ${failed[*]}"
say "lint: ok"

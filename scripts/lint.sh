#!/usr/bin/env bash
# lint.sh [STEP...]: everything that can be said about the code without running it; without arguments all steps:
#   format clippy rustdoc rules imports words generated chart licenses vendored shell
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

rustdoc() {
    need_libraries
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --locked --quiet
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
    only_in '\brdkafka::' '^worker/src/(kafka|transaction|consumer)(\.rs$|/)' worker/src \
        "rdkafka belongs to kafka, transaction and consumer in the worker"
    only_in '\banyhow\b' '^operator/src/(main\.rs|(run|local)(\.rs|/.*))$' operator/src \
        "anyhow belongs to the ends of the program: main.rs, run.rs, local; the stages have error types of their own"
    # unsafe lives in one module of the operator and one of the worker.
    only_in '\bunsafe\b([^-]|$)|allow\(unsafe_code\)' "$UNSAFE_MODULES" . "unsafe belongs to the two modules that call librdkafka directly"
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

# --- layers ---------------------------------------------------------------------------------------------

# The rooms of the worker (a room is the first part of a path below worker/src) and what each may import, from the
# highest floor to the lowest. docs/decisions/0045 says why.
WORKER_ROOMS='
process     args consumer control engine exit extensions health settings status telemetry
engine      consumer dead_letter exit extensions health kafka offsets pipeline processing record retry settings telemetry transaction writer
settings    args decode dead_letter exit extensions kafka retry secrets transaction transform writer
consumer    exit health kafka offsets processing record retry telemetry transaction
extensions  transform writer
processing  dead_letter health offsets pipeline record retry telemetry transaction writer
args        exit telemetry
writer      kafka offsets record retry secrets telemetry transaction
pipeline    decode health record telemetry transform
dead_letter health kafka record retry transaction
transform   decode record
transaction health kafka record retry
telemetry   health record
status      health
decode      record
kafka       record
offsets     record
health      record
seeded_bugs exit
record
retry
secrets
control
exit
sync
'
# Every room may import sync, and every room above the floor of seeded_bugs also seeded_bugs.
WORKER_WITHOUT_BUGS='decode kafka offsets health seeded_bugs record retry secrets control exit'

# The operator's floors, from the highest to the lowest: a room imports only from lower floors.
OPERATOR_FLOORS='
run plugin
args operations
controller local
group api
telemetry leader compiler reports
kafka digest
sync
'

imports() {
    bad=0
    local -A may=() floor=()
    local room allowed from to level=0 rooms found edges
    # An import of the crate's root is one of its highest floor: what lib.rs re-exports is for other crates.
    edges=$(crate_imports worker/src)
    while read -r room allowed; do
        [[ -n $room && $room != sync ]] || continue
        may[$room]=" $allowed sync "
        [[ " $WORKER_WITHOUT_BUGS " == *" $room "* ]] || may[$room]+="seeded_bugs "
    done <<<"$WORKER_ROOMS"
    may[sync]=" "
    while read -r from to; do
        [[ ${from%%/*} != "${to%%/*}" && $from != lib ]] || continue
        [[ -n ${may[${from%%/*}]:-} ]] || complain "worker/src/$from.rs: no room '${from%%/*}' in the import table of scripts/lint.sh"
        [[ ${may[${from%%/*}]:-} == *" ${to%%/*} "* ]] ||
            complain "worker/src/$from.rs imports ${to//\//::}, but the room ${from%%/*} may import only:${may[${from%%/*}]:-}"
    done <<<"$edges"
    no_circles worker/src "$edges"

    edges=$(crate_imports operator/src)
    while read -r rooms; do
        for room in $rooms; do floor[$room]=$level; done
        level=$((level + 1))
    done <<<"$OPERATOR_FLOORS"
    while read -r from to; do
        [[ ${from%%/*} != "${to%%/*}" && $from != lib ]] || continue
        for room in "${from%%/*}" "${to%%/*}"; do
            [[ -n ${floor[$room]:-} ]] || complain "operator/src/$from.rs: no room '$room' in the floors of scripts/lint.sh"
        done
        ((${floor[${from%%/*}]:-0} < ${floor[${to%%/*}]:-0})) ||
            complain "operator/src/$from.rs imports ${to//\//::}, which is not on a lower floor"
    done <<<"$edges"
    no_circles operator/src "$edges"
    no_circles crds/src "$(crate_imports crds/src)"
    return $bad
}

# crate_imports FOLDER: a line "from to" for each import between two files of a crate, without tests and what only they use.
crate_imports() {
    sources "$1" | grep -vE '/(tests|testing|fixtures)(\.rs$|/)|/bin/' | xargs awk -v root="$1" -f scripts/imports.awk
}

# no_circles FOLDER EDGES: no file imports itself through others.
no_circles() {
    local found
    found=$(grep -v '^lib ' <<<"$2" | tsort 2>&1 >/dev/null | sed 's/^tsort: //' || true)
    [[ -z $found ]] || complain "files of $1 import each other in a circle" "$found"
}

# --- English --------------------------------------------------------------------------------------------

# Private idioms, each with what to write instead in docs/decisions/0047. Checked in Markdown, the CRD, the chart and the
# string literals of what ships. A line that needs one of the words is in scripts/words.allow.
IDIOMS='told|tells|mended|mends|goes on|go on|going on|nobody|somebody|anew|begun|for ever|is away|are away|is back|spoils?|spoiled|gravest|left alone|handed on|given out|of its own|one.s own|without end|so many'

words() {
    bad=0
    local found
    found=$({
        git ls-files -- '*.md' 'crds/*.yaml' "$CHART" deploy | grep -vE '^docs/decisions/0047|\.svg$' |
            xargs grep -nEiw "$IDIOMS" /dev/null || true
        # String literals: what is between quotes in a line that is no comment.
        sources crds/src operator/src worker/src | grep -vE '/(tests|testing|fixtures)(\.rs$|/)' |
            xargs grep -nEiw "\"[^\"]*\b($IDIOMS)\b" /dev/null | grep -vE '^[^:]+:[0-9]+:\s*//' || true
    } | grep -vFf scripts/words.allow || true)
    [[ -z $found ]] || complain "private idioms: see docs/decisions/0047 for what to write" "$found"
    return $bad
}

# --- generated files, chart -----------------------------------------------------------------------------

generated() {
    bad=0
    local file
    local -a files
    scripts/generate.sh "$work/generated"
    # What is committed, and what should be.
    mapfile -t files < <({
        cd "$work/generated" && ls crds/*.yaml "$CHART"/files/*.yaml
        cd "$REPOSITORY" && ls crds/*.yaml "$CHART"/files/*.yaml
        printf 'deploy/install.yaml\n'
    } | sort -u)
    for file in "${files[@]}"; do
        diff -uN "$file" "$work/generated/$file" >"$work/diff" ||
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
    ! grep -E '^kind: CustomResourceDefinition' "$rendered" || complain "crds.install=false must leave out the CRDs"
    render
    [[ $(grep -cE '^kind: CustomResourceDefinition' "$rendered") == "$(find crds -maxdepth 1 -name '*.yaml' | wc -l)" &&
        $(grep -c 'helm.sh/resource-policy: keep' "$rendered") == "$(find crds -maxdepth 1 -name '*.yaml' | wc -l)" ]] ||
        complain "the chart must install every CRD, and keep it when the release is uninstalled"
    ! grep -nE 'tokenreviews|subjectaccessreviews|api-listen|name: api$|-api$' "$rendered" ||
        complain "without api.enabled nothing may listen, and there must be no right on reviews"
    render --set api.enabled=true
    for values in tokenreviews subjectaccessreviews api-listen=0.0.0.0:8081 'sessionAffinity: ClientIP'; do
        grep -q "$values" "$rendered" || complain "with api.enabled the chart lacks $values"
    done
    [[ $(grep -c 'kafkaconsumergroups/deadletters' "$rendered") == 1 ]] ||
        complain "exactly one role may have the right to see dead letters: api-payload-reader"
    # What must be refused.
    for values in replica=2 image.pullPolicy=Sometimes image.digest=sha256:abc watchNamespaces=shop replicas=-1 \
        api.enabled=true,api.port=8080 replicas=2,leaderElection.enabled=false serviceAccount.create=false \
        metrics.serviceMonitor.enabled=true,metrics.service.enabled=false; do
        ! render --set "$values" 2>/dev/null || complain "the chart takes the wrong value $values"
    done
    return $bad
}

# render ARGUMENT...: the chart as Helm would install it, into $rendered of the caller.
render() { "$HELM" template kco "$CHART" --namespace kco --kube-version "$KUBE_VERSION" "$@" >"$rendered"; }

# --- licenses, bans, sources ----------------------------------------------------------------------------

licenses() {
    cargo_tool cargo-deny "$CARGO_DENY_VERSION" cargo-deny "about 10 minutes on 2 cores"
    # Also the crates of other platforms, which no build here has fetched. Costs nothing when all are there.
    cargo fetch --locked --quiet
    # Advisories are not checked here: their database is not in the repository, and lint works without a network.
    "$cargo_tool/cargo-deny" --offline --locked check --hide-inclusion-graph licenses bans sources
}

# --- files of others ------------------------------------------------------------------------------------

# The folders whose README.md lists each of their files with its SHA-256.
VENDORED='operator/src/api/ui/vendor tests/vendor'

vendored() {
    bad=0
    local folder file sum
    for folder in $VENDORED; do
        while read -r file; do
            sum=$(sha256sum "$file" | cut -d ' ' -f 1)
            [[ $file == "$folder/README.md" ]] || grep -F "\`$(basename "$file")\`" "$folder/README.md" | grep -qF "\`$sum\`" ||
                complain "$folder/README.md does not list $file with its SHA-256 $sum"
        done < <(git ls-files --cached --others --exclude-standard -- "$folder")
        # shellcheck disable=SC2016 # the quotes of Markdown
        while read -r file; do
            [[ -f $folder/$file ]] || complain "$folder/README.md lists $file, which does not exist"
        done < <(sed -n 's/^| `\([^`]*\)`.*/\1/p' "$folder/README.md")
    done
    return $bad
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

all=(format clippy rustdoc rules imports words generated chart licenses vendored shell)
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

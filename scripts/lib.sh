# shellcheck shell=bash
# shellcheck disable=SC2034 # some variables are for the scripts that source this
# Shared by the scripts of this folder; each one sources it. Settings come from the environment:
#   CARGO_TARGET_DIR  where cargo builds, default target in the repository
#   KCG_CACHE         folder of the tools that scripts build, default ~/.cache/kafka-consumer-operator

set -euo pipefail

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$REPOSITORY"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPOSITORY/target}
export KCG_CACHE=${KCG_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kafka-consumer-operator}

# The same versions and folders as in tests/cluster/lib.sh, so that each tool is built once.
HELM_VERSION=3.22.0
CARGO_DENY_VERSION=0.20.2

CHART=charts/kafka-consumer-operator

. scripts/apt.sh

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Charts are rendered for this version without a cluster. A Helm built by `go install` assumes 1.20.
KUBE_VERSION=1.34.0

# Sets HELM to the path of Helm 3; builds it if neither the cache nor PATH has one.
find_helm() {
    local directory=$KCG_CACHE/helm-$HELM_VERSION
    HELM=$directory/helm
    if [[ ! -x $HELM ]]; then
        if command -v helm >/dev/null && [[ $(helm version --short 2>/dev/null) == v3.* ]]; then
            HELM=$(command -v helm)
            return
        fi
        command -v go >/dev/null || die "Helm 3 is needed: https://helm.sh/docs/intro/install (or Go, to build it)"
        say "building Helm $HELM_VERSION into $directory (about 3 minutes on 2 cores, once)" >&2
        mkdir -p "$KCG_CACHE"
        local partial
        partial=$(mktemp -d "$directory.partial.XXXXXX")
        CGO_ENABLED=0 GOBIN=$partial nice go install -trimpath "helm.sh/helm/v3/cmd/helm@v$HELM_VERSION" >&2
        mv -T "$partial" "$directory" 2>/dev/null || rm -rf "$partial"
    fi
}

# programs_of PROFILE: the folder of the programs that cargo builds with this profile.
programs_of() {
    if [[ $1 == dev ]]; then echo "$CARGO_TARGET_DIR/debug"; else echo "$CARGO_TARGET_DIR/$1"; fi
}

# built_profile DEFAULT: the profile with which the operator and the worker are built already, so that nothing is
# built twice: `make bench` builds release, `make test` dev, the first `make demo` demo.
built_profile() {
    local candidate folder
    for candidate in release dev demo; do
        folder=$(programs_of "$candidate")
        if [[ -x $folder/kafka-consumer-operator && -x $folder/kafka-consumer-worker ]]; then
            echo "$candidate"
            return
        fi
    done
    echo "$1"
}

# cargo_tool CRATE VERSION PROGRAM TIME: sets $cargo_tool to the folder of the crate's programs, PROGRAM among
# them; builds them if they are missing.
cargo_tool() {
    local directory=$KCG_CACHE/$1-$2
    cargo_tool=$directory/bin
    [[ ! -x $cargo_tool/$3 ]] || return 0
    say "building $1 $2 into $directory ($4, once)"
    mkdir -p "$KCG_CACHE"
    local build
    build=$(mktemp -d "$directory.build.XXXXXX")
    CARGO_TARGET_DIR=$build nice -n 19 cargo install --quiet --locked --root "$directory" "$1@$2"
    rm -rf "$build"
}

# Checks for the compiler and the libraries that librdkafka needs. Installs what is missing if it can (root on
# Debian).
need_libraries() {
    local packages=(build-essential pkg-config libssl-dev zlib1g-dev)
    if command -v cc >/dev/null && command -v c++ >/dev/null && command -v make >/dev/null &&
        command -v pkg-config >/dev/null && pkg-config --exists openssl zlib; then
        return
    fi
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        die "the Kafka client needs OpenSSL and zlib to build; on Debian: sudo apt-get install ${packages[*]}"
    fi
    say "installing ${packages[*]} ..."
    apt_install "${packages[@]}" >/dev/null
}

# Every call of cargo selects the whole workspace and picks its targets by kind or name: a selection of
# packages would have different features and compile half of the dependencies again.
#
# test_targets FOLDER...: prints the arguments that select the integration tests of these folders:
# tests/name.rs, tests/name/main.rs.
test_targets() {
    local folder file
    for folder in "$@"; do
        for file in "$folder"/tests/*.rs "$folder"/tests/*/main.rs; do
            [[ $file != */main.rs ]] || file=$(dirname "$file").rs
            [[ $file == *'*'* ]] || printf -- '--test\n%s\n' "$(basename "$file" .rs)"
        done
    done
}

# build_seeded_worker: builds target/seeded/kafka-consumer-worker, a worker with bugs that an environment
# variable switches on, to test the tests. In its own folder, and before the normal worker is built: the
# worker of other tests and of images must not have the bugs. The profile is dev, because nothing measures
# this worker.
build_seeded_worker() {
    local folder=$CARGO_TARGET_DIR/seeded
    cargo build --workspace --locked --bin kafka-consumer-worker --features kafka-consumer-worker/seeded-bugs
    mkdir -p "$folder"
    cp -f "$CARGO_TARGET_DIR/debug/kafka-consumer-worker" "$folder/kafka-consumer-worker.new"
    mv -f "$folder/kafka-consumer-worker.new" "$folder/kafka-consumer-worker"
}

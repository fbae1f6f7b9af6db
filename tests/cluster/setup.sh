#!/usr/bin/env bash
# Installs the dependencies of the test cluster: Debian packages, and builds in a cache folder outside of the
# checkout. Repeatable: it does not build again what exists. up.sh calls it.
. "$(dirname "$0")/lib.sh"
. "$CLUSTER_DIR/brokers.sh" # for fetch_kafka
. "$CLUSTER_DIR/../../scripts/apt.sh"

PACKAGES=(
    etcd-server containerd runc containernetworking-plugins # the node
    iproute2 iptables conntrack ethtool socat nftables      # its network
    buildah kcat postgresql postgresql-client               # images and services of the tests
    libssl-dev zlib1g-dev pkg-config build-essential        # librdkafka
    python3 jq openssl
    chromium chromium-driver fonts-dejavu-core              # the dashboard in a browser
)

# Processes and files that an interrupted run must not leave behind.
STEP_PID=
STEP_LOG=
PARTIAL=
clean_up() {
    [[ -z $STEP_PID ]] || kill -- "-$STEP_PID" 2>/dev/null || true
    [[ -z $STEP_LOG ]] || rm -f "$STEP_LOG"
    [[ -z $PARTIAL ]] || rm -rf "$PARTIAL"
}
trap clean_up EXIT

# step TEXT COMMAND...: runs a long command and prints a line every 15 s; prints its output only if it fails.
step() {
    local text=$1 started=$SECONDS beat=15
    shift
    STEP_LOG=$(mktemp)
    say "$text ..."
    set -m # its own process group, so that a signal stops all of it
    "$@" </dev/null >"$STEP_LOG" 2>&1 &
    STEP_PID=$!
    set +m
    while kill -0 "$STEP_PID" 2>/dev/null; do
        sleep 0.5
        if ((SECONDS - started >= beat)); then
            say "  still working, $((SECONDS - started)) s"
            beat=$((beat + 15))
        fi
    done
    if ! wait "$STEP_PID"; then
        tail -n 40 "$STEP_LOG" >&2
        die "failed: $text"
    fi
    STEP_PID=
    rm -f "$STEP_LOG"
    say "  done in $((SECONDS - started)) s"
}

# cached DIRECTORY TEXT FUNCTION: FUNCTION fills a folder, which gets its name only when it is complete.
cached() {
    local directory=$1 text=$2 make=$3
    [[ ! -d $directory ]] || return 0
    mkdir -p "$KCG_CACHE"
    PARTIAL=$(mktemp -d "$directory.partial.XXXXXX")
    chmod 755 "$PARTIAL"
    step "$text" "$make" "$PARTIAL"
    # Another process may have been faster; then its folder is equally good.
    mv -T "$PARTIAL" "$directory" 2>/dev/null || [[ -d $directory ]] || die "cannot create $directory"
    rm -rf "$PARTIAL"
    PARTIAL=
}

is_installed() { [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

install_packages() {
    local -a missing=()
    local package
    for package in "${PACKAGES[@]}"; do
        is_installed "$package" || missing+=("$package")
    done
    command -v java >/dev/null || missing+=(default-jre-headless)
    command -v mvn >/dev/null || [[ -d $KAFKA_JARS ]] || missing+=(maven)
    ((${#missing[@]} == 0)) || step "Installing Debian packages: ${missing[*]} (about a minute)" apt_install "${missing[@]}"
}

require_go() {
    [[ -d $KUBERNETES_BIN && -d $HELM_BIN ]] && return 0
    command -v go >/dev/null || die "Go 1.24 or newer is needed to build Kubernetes and Helm: https://go.dev/dl"
}

build_kubernetes() {
    local component=k8s.io/component-base/version version=$KUBERNETES_VERSION name
    cd "$CLUSTER_DIR/kubernetes"
    CGO_ENABLED=0 go build -trimpath -o "$1/kubernetes" -ldflags "-s -w \
-X $component.gitVersion=v$version -X k8s.io/client-go/pkg/version.gitVersion=v$version \
-X $component.gitMajor=${version%%.*} -X $component.gitMinor=$(cut -d. -f2 <<<"$version")" .
    for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
        ln -s kubernetes "$1/$name"
    done
}

build_helm() {
    CGO_ENABLED=0 GOBIN=$1 go install -trimpath -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=v$HELM_VERSION" \
        "helm.sh/helm/v3/cmd/helm@v$HELM_VERSION"
}

# An image with one file, in the archive format of "docker save": no registry is involved.
build_pause() {
    local work=$1/work digest
    mkdir "$work"
    cc -O2 -Wall -Wextra -Werror -static -s -o "$work/pause" "$CLUSTER_DIR/pause/pause.c"
    tar -C "$work" --owner=0 --group=0 --numeric-owner -cf "$work/layer.tar" pause
    digest=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
    jq -n --arg arch "$(dpkg --print-architecture)" --arg layer "sha256:$digest" \
        '{architecture: $arch, os: "linux", config: {Entrypoint: ["/pause"], User: "65535:65535"},
          rootfs: {type: "layers", diff_ids: [$layer]}}' >"$work/config.json"
    jq -n --arg image "$PAUSE_IMAGE" \
        '[{Config: "config.json", RepoTags: [$image], Layers: ["layer.tar"]}]' >"$work/manifest.json"
    tar -C "$work" -cf "$1/pause.tar" manifest.json config.json layer.tar
    rm -rf "$work"
}

if is_external; then
    require_external_settings
    exit 0
fi
require_own_cluster
install_packages
require_go
cached "$PAUSE_DIR" "Building the pause image (a second)" build_pause
cached "$KAFKA_JARS" "Fetching Kafka $KAFKA_VERSION from Maven Central (about a minute, once)" fetch_kafka
cached "$KUBERNETES_BIN" "Building Kubernetes $KUBERNETES_VERSION (about 8 minutes on 2 cores, once)" build_kubernetes
cached "$HELM_BIN" "Building Helm $HELM_VERSION (about 3 minutes on 2 cores, once)" build_helm

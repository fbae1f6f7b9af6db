# shellcheck shell=bash
# The Kubernetes part of the cluster: functions for up.sh and down.sh, which also source lib.sh and brokers.sh.

BRIDGE=kcg0
POD_NETWORK=198.51.100.0/24
SERVICE_NETWORK=10.96.0.0/16
SERVICE_ADDRESS=10.96.0.1 # the API server, as pods see it
NODE=$KCG_NETNS
KUBELET_DIR=$KCG_STATE/kubelet
CERTS=$KCG_STATE/certs

# --- network ------------------------------------------------------------------------------------------

# The bridge records which cluster owns the namespace, even if the state folder is gone.
BRIDGE_ALIAS="kafka-consumer-operator test cluster in $KCG_STATE"

netns_is_ours() { ip -n "$KCG_NETNS" link show dev "$BRIDGE" 2>/dev/null | grep -qxF "    alias $BRIDGE_ALIAS"; }

require_netns_free_or_ours() {
    [[ ! -e $NETNS_FILE ]] || netns_is_ours ||
        die "the network namespace $KCG_NETNS does not belong to the cluster in $KCG_STATE; set KCG_NETNS to another name"
}

make_network() {
    ip netns add "$KCG_NETNS"
    ip -n "$KCG_NETNS" link set lo up
    ip -n "$KCG_NETNS" link add "$BRIDGE" type bridge
    ip -n "$KCG_NETNS" link set "$BRIDGE" alias "$BRIDGE_ALIAS"
    ip -n "$KCG_NETNS" address add "$HOST/24" dev "$BRIDGE"
    ip -n "$KCG_NETNS" link set "$BRIDGE" up
    # Service addresses need a route before kube-proxy's rules can translate them into pods' addresses.
    ip -n "$KCG_NETNS" route add default dev "$BRIDGE"
    # The bridge returns packets from a pod to another one through a service on the interface they came from.
    # The kernel must not send the pod a redirect to the shorter path, which would bypass kube-proxy's rules.
    in_netns sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 "net.ipv4.conf.$BRIDGE.send_redirects=0"
}

# --- credentials --------------------------------------------------------------------------------------

# write_kubeconfig FILE TOKEN
write_kubeconfig() {
    (umask 077 && cat >"$1") <<END
apiVersion: v1
kind: Config
clusters: [{name: kcg, cluster: {server: "https://$HOST:6443", certificate-authority-data: $(base64 -w0 <"$CERTS/kubernetes-ca.crt")}}]
users: [{name: kcg, user: {token: $2}}]
contexts: [{name: kcg, context: {cluster: kcg, user: kcg}}]
current-context: kcg
END
}

# user FILE NAME [GROUP]: creates a token for NAME, and a kubeconfig with it.
user() {
    local token
    token=$(openssl rand -hex 16)
    printf '%s,%s,%s,"%s"\n' "$token" "$2" "$2" "${3:-}" >>"$CERTS/tokens.csv"
    write_kubeconfig "$1" "$token"
}

make_credentials() {
    mkdir -p "$CERTS"
    new_ca "$CERTS/kubernetes-ca" kubernetes-ca
    new_signed "$CERTS/kubernetes-ca" "$CERTS/apiserver" kube-apiserver $'extendedKeyUsage=serverAuth\n'"subjectAltName=\
IP:$HOST,IP:$SERVICE_ADDRESS,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
DNS:kubernetes.default.svc.cluster.local"
    new_key "$CERTS/service-account.key"
    openssl pkey -in "$CERTS/service-account.key" -pubout -out "$CERTS/service-account.pub"
    (umask 077 && : >"$CERTS/tokens.csv")
    user "$ADMIN_KUBECONFIG" kubernetes-admin system:masters
    user "$CERTS/controller-manager.kubeconfig" system:kube-controller-manager
    user "$CERTS/scheduler.kubeconfig" system:kube-scheduler
    user "$CERTS/proxy.kubeconfig" system:kube-proxy
    user "$CERTS/kubelet.kubeconfig" "system:node:$NODE" system:nodes
}

# --- control plane ------------------------------------------------------------------------------------

start_etcd() {
    start_daemon etcd etcd --name=kcg --data-dir="$KCG_STATE/etcd" --unsafe-no-fsync \
        --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
        --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
        --initial-cluster=kcg=http://127.0.0.1:2380
    wait_ready etcd http_ok 127.0.0.1 2379 /health
}

# The audit log shows who wrote what: tests read it to check that a controller at rest writes nothing.
write_audit_policy() {
    cat >"$KCG_STATE/audit-policy.yaml" <<'END'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    verbs: [create, update, patch, delete, deletecollection]
  - level: None
END
}

start_apiserver() {
    write_audit_policy
    # Without InternalIP first, exec and logs would try to resolve the node's name.
    start_daemon kube-apiserver "$KUBERNETES_BIN/kube-apiserver" \
        --etcd-servers=http://127.0.0.1:2379 \
        --bind-address=0.0.0.0 --advertise-address="$HOST" --secure-port=6443 \
        --service-cluster-ip-range="$SERVICE_NETWORK" \
        --tls-cert-file="$CERTS/apiserver.crt" --tls-private-key-file="$CERTS/apiserver.key" \
        --token-auth-file="$CERTS/tokens.csv" \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$CERTS/service-account.pub" \
        --service-account-signing-key-file="$CERTS/service-account.key" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
        --kubelet-preferred-address-types=InternalIP \
        --audit-policy-file="$KCG_STATE/audit-policy.yaml" --audit-log-path="$KCG_STATE/logs/audit.log" \
        --audit-log-maxsize=1000
    wait_ready kube-apiserver admin get --raw /readyz
}

# Both serve their health on a port with a self-signed certificate.
healthy() { admin --server="https://127.0.0.1:$1" --insecure-skip-tls-verify get --raw /healthz; }

start_controllers() {
    # The default limits of 20 requests per second are for clusters whose API server has other clients.
    start_daemon kube-controller-manager "$KUBERNETES_BIN/kube-controller-manager" \
        --kubeconfig="$CERTS/controller-manager.kubeconfig" --use-service-account-credentials=true \
        --root-ca-file="$CERTS/kubernetes-ca.crt" \
        --service-account-private-key-file="$CERTS/service-account.key" \
        --leader-elect=false --kube-api-qps=300 --kube-api-burst=600
    start_daemon kube-scheduler "$KUBERNETES_BIN/kube-scheduler" \
        --kubeconfig="$CERTS/scheduler.kubeconfig" --leader-elect=false --kube-api-qps=300 --kube-api-burst=600
}

# --- node ---------------------------------------------------------------------------------------------

write_cni_config() {
    mkdir -p "$KCG_STATE/cni/conf" "$KCG_STATE/cni/ipam"
    cat >"$KCG_STATE/cni/conf/10-kcg.conflist" <<END
{"cniVersion": "0.4.0", "name": "$CGROUP", "plugins": [
  {"type": "bridge", "bridge": "$BRIDGE", "isGateway": false, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$KCG_STATE/cni/ipam", "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": "$POD_NETWORK", "rangeStart": "198.51.100.10", "gateway": "$HOST"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
END
}

# restrict_oom_score_adj: inside a container, runc is not allowed to lower that value, and fails.
# netns_mounts_under_state_dir: the network namespaces of pods are found and removed with the state folder.
write_containerd_config() {
    mkdir -p "$KCG_STATE/containerd"
    cat >"$KCG_STATE/containerd/config.toml" <<END
version = 2
root = "$KCG_STATE/containerd/root"
state = "$KCG_STATE/containerd/state"
[grpc]
  address = "$CONTAINERD_SOCKET"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$KCG_STATE/cni/conf"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.internal.v1.opt"]
  path = "$KCG_STATE/containerd/opt"
END
}

containerd_ctl() { in_netns ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io "$@"; }

start_containerd() {
    write_cni_config
    write_containerd_config
    start_daemon containerd containerd --config "$KCG_STATE/containerd/config.toml"
    wait_ready containerd containerd_ctl version
    containerd_ctl images import "$PAUSE_DIR/pause.tar" >>"$KCG_STATE/logs/containerd.log" 2>&1 ||
        not_ready containerd "importing the pause image failed"
}

# cgroup v1 has a tree for each controller, v2 a single one.
cgroup_trees() {
    if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
        echo /sys/fs/cgroup
    else
        local tree
        for tree in /sys/fs/cgroup/*/; do
            [[ ! -f $tree/cgroup.procs ]] || echo "${tree%/}"
        done
    fi
}

make_cgroup() {
    local tree controller
    while read -r tree; do
        mkdir -p "$tree/$CGROUP"
        [[ -f $tree/cgroup.controllers ]] || continue
        for controller in $(<"$tree/cgroup.controllers"); do
            echo "+$controller" >"$tree/cgroup.subtree_control" 2>/dev/null || true
        done
    done < <(cgroup_trees)
}

# The kubelet sets these for the whole machine; down.sh restores the old values. The saved values are outside
# of the state folder, which may get lost, and in /run, which lasts as long as the running kernel.
SAVED_SYSCTLS=/run/$CGROUP.sysctls
HOST_SYSCTLS=(vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes)

save_host_sysctls() {
    local name
    [[ ! -f $SAVED_SYSCTLS ]] || return 0
    for name in "${HOST_SYSCTLS[@]}"; do
        [[ ! -f /proc/sys/$name ]] || printf '%s %s\n' "$name" "$(<"/proc/sys/$name")"
    done >"$SAVED_SYSCTLS.new"
    mv "$SAVED_SYSCTLS.new" "$SAVED_SYSCTLS"
}

restore_host_sysctls() {
    local name value
    [[ -f $SAVED_SYSCTLS ]] || return 0
    while read -r name value; do
        echo "$value" >"/proc/sys/$name" 2>/dev/null || true
    done <"$SAVED_SYSCTLS"
    rm -f "$SAVED_SYSCTLS"
}

# No image is ever garbage collected (imageGCHighThresholdPercent): there is no registry to pull it from
# again.
# clusterDNS: nothing listens there, so a lookup fails at once; without it every pod gets a warning.
write_kubelet_config() {
    mkdir -p "$KUBELET_DIR"
    cat >"$KCG_STATE/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$CONTAINERD_SOCKET
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
evictionHard: {memory.available: 50Mi, nodefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
podLogsDir: $KCG_STATE/logs/pods
staticPodPath: ""
address: $HOST
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
clusterDNS: [$HOST]
clusterDomain: cluster.local
resolvConf: ""
maxPods: 200
kubeAPIQPS: 300
kubeAPIBurst: 600
END
}

start_kubelet() {
    make_cgroup
    save_host_sysctls
    write_kubelet_config
    start_daemon kubelet "$KUBERNETES_BIN/kubelet" --config="$KCG_STATE/kubelet.yaml" \
        --kubeconfig="$CERTS/kubelet.kubeconfig" --root-dir="$KUBELET_DIR" \
        --cert-dir="$KUBELET_DIR/pki" --hostname-override="$NODE" --node-ip="$HOST"
}

# masqueradeAll: the answer to a service request returns the way it came even if both ends are pods on the
# same bridge. Zeroes: the connection tracking limits belong to the whole machine.
start_proxy() {
    cat >"$KCG_STATE/kube-proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: $CERTS/proxy.kubeconfig}
hostnameOverride: $NODE
clusterCIDR: $POD_NETWORK
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
iptables: {masqueradeAll: true}
conntrack: {maxPerCore: 0, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 0s}
END
    start_daemon kube-proxy "$KUBERNETES_BIN/kube-proxy" --config="$KCG_STATE/kube-proxy.yaml"
}

node_is_ready() { admin wait --for=condition=Ready --timeout=1s "node/$NODE"; }

# --- all of it ----------------------------------------------------------------------------------------

KUBERNETES_DAEMONS=(kubelet kube-proxy kube-scheduler kube-controller-manager kube-apiserver etcd containerd)

kubernetes_is_running() {
    local name
    for name in "${KUBERNETES_DAEMONS[@]}"; do
        is_running "$name" || return 1
    done
}

start_kubernetes() {
    make_credentials
    start_etcd
    start_containerd
    start_apiserver
    start_controllers
    start_kubelet
    start_proxy
    wait_ready kube-controller-manager healthy 10257
    wait_ready kube-scheduler healthy 10259
    wait_ready kube-proxy http_ok 127.0.0.1 10256 /healthz
    wait_ready kube-proxy tcp_open "$SERVICE_ADDRESS" 443
    wait_ready kubelet node_is_ready
    # Pods cannot be created before their service account exists.
    wait_ready kube-controller-manager admin get serviceaccount default
    say "kubernetes: ready"
}

# --- tearing down, also after a crash -----------------------------------------------------------------

container_processes() {
    local tree
    while read -r tree; do
        [[ ! -d $tree/$CGROUP ]] || find "$tree/$CGROUP" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done < <(cgroup_trees) | sort -un
}

# Their parents, containerd's shims, may need a moment to reap them.
kill_containers() {
    local pids attempt
    for ((attempt = 0; attempt < 50; attempt++)); do
        pids=$(container_processes)
        [[ -n $pids ]] || return 0
        # shellcheck disable=SC2086 # a list of numbers
        kill -s KILL $pids 2>/dev/null || true
        sleep 0.1
    done
    die "processes of containers do not end: $pids"
}

remove_cgroup() {
    local tree
    while read -r tree; do
        [[ ! -d $tree/$CGROUP ]] || find "$tree/$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done < <(cgroup_trees)
}

# Daemons without a pid file (the state folder was deleted) and containerd's shims: programs that this cluster
# starts, with a path of this cluster among their arguments.
stray_daemons() {
    local directory pid
    local -a arguments
    for directory in /proc/[0-9]*; do
        pid=${directory#/proc/}
        is_ours "$pid" || continue
        mapfile -d '' -t arguments 2>/dev/null <"$directory/cmdline" || continue
        case $(basename -- "${arguments[0]:-}") in
            etcd | kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kube-proxy | postgres | \
                containerd | containerd-shim-runc-v2) echo "$pid" ;;
            java) [[ " ${arguments[*]} " != *" kafka."* ]] || echo "$pid" ;; # the broker, the formatting of its storage
        esac
    done
}

kill_stray_daemons() {
    local pid
    for pid in $(stray_daemons); do
        kill -s KILL "$pid" 2>/dev/null || true
        wait_gone "$pid" 10 || die "process $pid does not end: $(command_line "$pid")"
    done
}

# Deepest first.
unmount_all() {
    local target attempt
    for ((attempt = 0; attempt < 20; attempt++)); do
        local -a targets=()
        mapfile -t targets < <(awk -v below="$KCG_STATE/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
        ((${#targets[@]})) || return 0
        for target in "${targets[@]}"; do
            umount "$target" 2>/dev/null || true
        done
        sleep 0.1
    done
    die "cannot unmount ${targets[*]}"
}

remove_network() {
    [[ ! -e $NETNS_FILE ]] || ip netns delete "$KCG_NETNS"
}

# Files that containerd, the kubelet and the network plugins write outside of the state folder.
remove_traces() {
    local address
    for address in "$KCG_STATE"/containerd/state/io.containerd.runtime.v2.task/k8s.io/*/address; do
        [[ ! -f $address ]] || rm -f "$(sed 's|^unix://||' "$address")"
    done
    [[ ! -d /var/log/containers ]] || find /var/log/containers -lname "$KCG_STATE/*" -delete
    # The names are NETWORK-CONTAINER-INTERFACE; each of our containers has another one for its loopback.
    local result container
    for result in "/var/lib/cni/results/$CGROUP-"*-eth0; do
        container=${result#"/var/lib/cni/results/$CGROUP-"}
        rm -f "$result" "/var/lib/cni/results/cni-loopback-${container%-eth0}-lo"
    done
}

# Only deletes a folder that up.sh has created: it has a mark, or the bridge contains its name.
require_state_free_or_ours() {
    [[ -d $KCG_STATE ]] || return 0
    ! netns_is_ours || : >"$KCG_STATE/.kcg-cluster"
    [[ -f $KCG_STATE/.kcg-cluster ]] || die "$KCG_STATE is not the folder of a test cluster; set KCG_STATE to another one"
}

remove_state() {
    [[ -d $KCG_STATE ]] || return 0
    if [[ ${1:-} == keep-logs ]]; then
        find "$KCG_STATE" -mindepth 1 -maxdepth 1 ! -name logs ! -name .kcg-cluster -exec rm -rf --one-file-system {} +
    else
        rm -rf --one-file-system "$KCG_STATE"
    fi
}

# tear_down [keep-logs]: works with any part of a cluster, from all of it to nothing.
tear_down() {
    local name
    require_netns_free_or_ours
    require_state_free_or_ours
    stop_daemon kubelet TERM 10
    stop_daemon postgres INT 10
    # The data is deleted with the cluster, so these need no clean shutdown.
    kill_brokers
    for name in kube-proxy kube-scheduler kube-controller-manager kube-apiserver etcd; do
        stop_daemon "$name" KILL 10
    done
    kill_containers
    stop_daemon containerd TERM 10
    kill_stray_daemons
    unmount_all
    remove_network
    remove_cgroup
    restore_host_sysctls
    remove_traces
    remove_state "$@"
}

# shellcheck shell=bash
# A Kafka broker on 127.0.0.1 for one script alone; sourced after lib.sh by bench.sh and soak.sh, which set:
#   KCG_STATE      folder of the broker: its data stays there between runs
#   port           of the broker; its controller gets the next one
#   broker_config  more lines for server.properties; may be empty
#   listeners      ",PROXIED://HOST:PORT" for a listener whose clients go through a proxy; may be empty
#   advertised     what it tells its clients, in the same form
# and which get start_broker, stop_broker and build_programs. They hold a lock of their own in file descriptor 9.
: "${port:?}" "${broker_config:=}" "${listeners:=}" "${advertised:=}"
# Kafka's jars, and daemons that are told by the state folder among their arguments.
. tests/cluster/lib.sh

config=$KCG_STATE/kafka/server.properties

# An orderly stop, or the next start reads all segments again.
stop_broker() { stop_daemon kafka TERM 60; }

# Maven writes next to the pom.xml it reads, so it reads a copy.
fetch_jars() {
    command -v mvn >/dev/null || die "Maven is needed to fetch Kafka: apt-get install maven"
    say "fetching Kafka $KAFKA_VERSION from Maven Central (about a minute, once)"
    local partial
    mkdir -p "$KCG_CACHE"
    partial=$(mktemp -d "$KAFKA_JARS.partial.XXXXXX")
    mkdir "$partial/work"
    cp "$CLUSTER_DIR/kafka/pom.xml" "$partial/work/"
    mvn -B -q -f "$partial/work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$partial"
    rm -rf "$partial/work"
    mv -T "$partial" "$KAFKA_JARS" 2>/dev/null || rm -rf "$partial"
}

write_config() {
    cat >"$config" <<END
process.roles=broker,controller
node.id=1
log.dirs=$KCG_STATE/kafka/data
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))$listeners
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))$advertised
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# Topics are made anew for every run.
log.segment.delete.delay.ms=1000
$broker_config
END
}

is_ready() { timeout 2 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"; }

# start_broker: fetches Kafka if need be, and returns when the broker is ready.
start_broker() {
    command -v java >/dev/null || die "Java 17 or newer is needed for Kafka: apt-get install default-jre-headless"
    [[ -d $KAFKA_JARS ]] || fetch_jars
    mkdir -p "$KCG_STATE/kafka" "$KCG_STATE/pids" "$KCG_STATE/logs"
    # Left behind by a run that was killed.
    stop_daemon kafka TERM 60
    ! is_ready 2>/dev/null || die "something listens on 127.0.0.1:$port already; choose another port"
    write_config
    if [[ ! -f $KCG_STATE/kafka/data/meta.properties ]]; then
        java -Xmx256m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$KAFKA_JARS/*" \
            kafka.tools.StorageTool format --standalone -t kcgBenchBenchBenchBenc -c "$config" \
            >"$KCG_STATE/logs/kafka.log" 2>&1 || not_ready kafka "its storage cannot be formatted"
    fi
    # A session of its own, so that Ctrl-C reaches the measuring program first. File descriptor 9 is the lock.
    setsid java -Xms1g -Xmx1g -XX:+UseG1GC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -cp "$KAFKA_JARS/*" kafka.Kafka "$config" </dev/null >"$KCG_STATE/logs/kafka.log" 2>&1 9>&- &
    local pid=$! attempt
    echo "$pid" >"$KCG_STATE/pids/kafka"
    # Until it has become java it is a copy of this script, which would look as if the broker had ended.
    for ((attempt = 0; attempt < 100; attempt++)); do
        if is_ours "$pid" || ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.05
    done
    wait_ready kafka is_ready
    say "kafka: ready on 127.0.0.1:$port"
}


# build_programs NAME...: with the profile PROFILE; sets binaries to the folder they are in. The workspace as in
# deploy/image.sh, so that dependencies are built once for both.
build_programs() {
    local profile=${PROFILE:-release} folder name
    local -a arguments=()
    folder=$profile
    [[ $profile != dev ]] || folder=debug
    for name in "$@"; do arguments+=(--bin "$name"); done
    say "building, with the profile $profile"
    cargo build --profile "$profile" --locked --workspace "${arguments[@]}"
    # shellcheck disable=SC2034 # for the caller
    binaries=$CARGO_TARGET_DIR/$folder
}

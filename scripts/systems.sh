# shellcheck shell=bash
# A Kafka broker and a PostgreSQL server on 127.0.0.1 for one script only. bench.sh and soak.sh source this
# file after lib.sh and after they set:
#   program        "bench" or "soak": the program, and in upper case the prefix of the settings that messages name
#   KCG_STATE      folder of the broker; its data stays there between runs
#   port           port of the broker; its controller gets the next one
#   database_port  port of PostgreSQL
#   broker_config  more lines for server.properties; may be empty
#   listeners      ",PROXIED://HOST:PORT" for a listener whose clients go through a proxy; may be empty
#   advertised     the address that this listener advertises, in the same form
# They get start_broker, stop_broker, start_database, stop_database, build_programs, prepare_run and
# run_program.
: "${program:?}" "${port:?}" "${database_port:?}" "${broker_config:=}" "${listeners:=}" "${advertised:=}"
# Kafka's jars, and functions that find a daemon by the state folder among its arguments.
. tests/cluster/lib.sh
# PostgreSQL runs in this machine's own network. Its folder is outside of the broker's, because PostgreSQL's
# user must be able to read the path.
. tests/cluster/postgres.sh
# shellcheck disable=SC2034 # for the functions of postgres.sh
ENTER=() HOST=127.0.0.1
database=/tmp/kcg-$program-$database_port

config=$KCG_STATE/kafka/server.properties

# --- broker -------------------------------------------------------------------------------------------

# A clean shutdown; otherwise the next start reads all segments again.
stop_broker() { stop_daemon kafka TERM 60; }

# Maven writes next to the pom.xml that it reads, so it gets a copy.
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
# Every run creates its topics again.
log.segment.delete.delay.ms=1000
$broker_config
END
}

is_ready() { timeout 2 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"; }

# start_broker: fetches Kafka if it is missing, and returns when the broker is ready.
start_broker() {
    command -v java >/dev/null || die "Java 17 or newer is needed for Kafka: apt-get install default-jre-headless"
    [[ -d $KAFKA_JARS ]] || fetch_jars
    mkdir -p "$KCG_STATE/kafka" "$KCG_STATE/pids" "$KCG_STATE/logs"
    # A killed run may have left its broker.
    stop_daemon kafka TERM 60
    ! is_ready 2>/dev/null || die "another process listens on 127.0.0.1:$port; set ${program^^}_PORT to another port"
    write_config
    if [[ ! -f $KCG_STATE/kafka/data/meta.properties ]]; then
        java -Xmx256m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$KAFKA_JARS/*" \
            kafka.tools.StorageTool format --standalone -t kcgBenchBenchBenchBenc -c "$config" \
            >"$KCG_STATE/logs/kafka.log" 2>&1 || not_ready kafka "its storage cannot be formatted"
    fi
    # In its own session, so that Ctrl-C reaches the program first. File descriptor 9 is the lock.
    setsid java -Xms1g -Xmx1g -XX:+UseG1GC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -cp "$KAFKA_JARS/*" kafka.Kafka "$config" </dev/null >"$KCG_STATE/logs/kafka.log" 2>&1 9>&- &
    local pid=$! attempt
    echo "$pid" >"$KCG_STATE/pids/kafka"
    # Before the new process executes java it is a copy of this script, which looks as if the broker had
    # ended.
    for ((attempt = 0; attempt < 100; attempt++)); do
        if is_ours "$pid" || ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.05
    done
    wait_ready kafka is_ready
    say "kafka: ready on 127.0.0.1:$port"
}

# --- database -----------------------------------------------------------------------------------------

# start_database: a new, empty database; sets database_url. The functions of the cluster get another state
# folder for this.
start_database() {
    stop_database
    mkdir -p "$database"
    chmod 755 "$database"
    (KCG_STATE=$database start_postgres "$database_port")
    # shellcheck disable=SC2034 # for the caller
    database_url=postgresql://kcg:kcg@$HOST:$database_port/kcg
}

# A "fast" shutdown: PostgreSQL rolls open transactions back. The data is not kept.
stop_database() {
    KCG_STATE=$database stop_daemon postgres INT 30
    rm -rf "$database"
}

# --- program ------------------------------------------------------------------------------------------

# build_programs NAME...: builds with the profile PROFILE and sets binaries to the folder of the programs.
# Selects the workspace as deploy/image.sh does, so that dependencies are built once for both.
build_programs() {
    local profile=${PROFILE:-release} folder name
    local -a arguments=()
    folder=$profile
    [[ $profile != dev ]] || folder=debug
    for name in "$@"; do arguments+=(--bin "$name"); done
    say "building with the profile $profile"
    cargo build --profile "$profile" --locked --workspace "${arguments[@]}"
    binaries=$CARGO_TARGET_DIR/$folder
}

require_state() {
    [[ $KCG_STATE == /* && $KCG_STATE != *[[:space:]]* ]] ||
        die "${program^^}_STATE must be an absolute path without spaces"
}

program_pid=none

clean_up() {
    trap - EXIT
    if jobs -rp | grep -qx "$program_pid"; then
        kill "$program_pid" 2>/dev/null || true
        wait "$program_pid" 2>/dev/null || true
    fi
    stop_database
    stop_broker
}

# prepare_run: locks the state folder, which file descriptor 9 holds, and stops program, broker and database
# when the script ends.
prepare_run() {
    mkdir -p "$KCG_STATE"
    exec 9>"$KCG_STATE/lock"
    flock -n 9 || die "another $program.sh uses $KCG_STATE"
    trap clean_up EXIT
    trap 'exit 130' INT TERM
}

# run_program ARGUMENT...: runs the program to its end. In the background, so that the script handles a signal
# at once.
run_program() {
    "$binaries/$program" "$@" 9>&- &
    program_pid=$!
    wait "$program_pid"
}

# shellcheck shell=bash
# A Kafka cluster below $KCG_STATE: one broker, or several on the same address with different ports. Each broker
# is also a controller. kafka-start.sh, broker.sh and scripts/systems.sh source this file after lib.sh. Settings
# of the caller:
#   broker_listeners  the listeners of broker 1, separated by spaces: NAME:PORT, or NAME:PORT:ADVERTISED-PORT.
#                     Broker N adds 10 * (N - 1) to each port. Clients of the scripts use PLAINTEXT; brokers use
#                     CONTROLLER and INTERNAL with each other, or PLAINTEXT if there is only one
#   broker_config     more lines for server.properties; may be empty
#   broker_format     more arguments for the formatting of the storage; may be empty
#   broker_java       arguments of Java if there is only one broker
#   broker_log_level  of all loggers
#   port_setting      name of the setting that a message about an occupied port suggests to change; may be empty
# The first broker has the name "kafka" for its folder, log and pid file, the others "kafka-2" and so on.
: "${broker_listeners:=}" "${broker_config:=}" "${broker_log_level:=info}"
[[ -v broker_format ]] || broker_format=()
[[ -v broker_java ]] || broker_java=(-Xms256m -Xmx1g)

BROKER_SETTINGS=$KCG_STATE/kafka/settings # for broker.sh
MAX_BROKERS=9

# Several brokers share a machine with the tests. With only the first compiler (TieredStopAtLevel) a start takes half
# of the CPU time.
SMALL_JAVA=(-Xms256m -Xmx320m -XX:+UseSerialGC -XX:TieredStopAtLevel=1)

broker_name() {
    if (($1 == 1)); then echo kafka; else echo "kafka-$1"; fi
}

# started_brokers: the numbers of all brokers that have a pid file, whatever the settings are now.
started_brokers() {
    local number
    for ((number = 1; number <= MAX_BROKERS; number++)); do
        [[ ! -f $KCG_STATE/pids/$(broker_name "$number") ]] || echo "$number"
    done
}

# stored_brokers: how many brokers the data of this folder belongs to; nothing if there is none.
stored_brokers() {
    if [[ -f $BROKER_SETTINGS ]]; then
        # shellcheck source=/dev/null
        (. "$BROKER_SETTINGS" && echo "$KCG_BROKERS")
    elif [[ -f $KCG_STATE/kafka/data/meta.properties ]]; then
        echo 1
    fi
}

# --- addresses ----------------------------------------------------------------------------------------

# broker_port LISTENER NUMBER
broker_port() {
    local listener name port
    for listener in $broker_listeners; do
        IFS=: read -r name port _ <<<"$listener"
        [[ $name != "$1" ]] || echo $((port + 10 * ($2 - 1)))
    done
}

# broker_addresses LISTENER: of all brokers, separated by commas.
broker_addresses() {
    local number addresses=
    for ((number = 1; number <= KCG_BROKERS; number++)); do
        addresses+=${addresses:+,}$HOST:$(broker_port "$1" "$number")
    done
    echo "$addresses"
}

# --- configuration ------------------------------------------------------------------------------------

# directory_id NUMBER: identifies the storage of a controller, 16 bytes in Base64.
directory_id() { echo "kcgDirectoryOfBroker${1}A"; }

write_broker_config() {
    local number=$1 folder listener name port advertised_port between=PLAINTEXT replicas in_sync
    local listeners='' advertised='' several=''
    folder=$KCG_STATE/$(broker_name "$number")
    replicas=$((KCG_BROKERS < 3 ? KCG_BROKERS : 3))
    in_sync=$((replicas < 3 ? 1 : 2))
    for listener in $broker_listeners; do
        IFS=: read -r name port advertised_port <<<"$listener"
        [[ $name != INTERNAL || $KCG_BROKERS != 1 ]] || continue
        listeners+=${listeners:+,}$name://$HOST:$((port + 10 * (number - 1)))
        advertised+=${advertised:+,}$name://$HOST:$((${advertised_port:-$port} + 10 * (number - 1)))
    done
    if ((KCG_BROKERS > 1)); then
        between=INTERNAL
        # Tests that stop a broker must not wait for production timeouts. The cleaner's buffer would be half of
        # the heap.
        several="broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=6000
replica.lag.time.max.ms=5000
log.cleaner.dedupe.buffer.size=8388608"
    fi
    mkdir -p "$folder"
    cat >"$folder/server.properties" <<END
process.roles=broker,controller
node.id=$number
log.dirs=$folder/data
controller.quorum.bootstrap.servers=$(broker_addresses CONTROLLER)
controller.listener.names=CONTROLLER
inter.broker.listener.name=$between
listeners=$listeners
advertised.listeners=$advertised
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,MTLS:SSL,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,INTERNAL:PLAINTEXT
auto.create.topics.enable=false
unclean.leader.election.enable=false
controlled.shutdown.enable=true
default.replication.factor=$replicas
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$in_sync
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
$several
$broker_config
END
}

# format_broker NUMBER: only once; the storage keeps the list of the controllers.
format_broker() {
    local name folder number controllers=
    name=$(broker_name "$1")
    folder=$KCG_STATE/$name
    [[ ! -f $folder/data/meta.properties ]] || return 0
    for ((number = 1; number <= KCG_BROKERS; number++)); do
        controllers+=${controllers:+,}$number@$HOST:$(broker_port CONTROLLER "$number"):$(directory_id "$number")
    done
    in_netns java -Xmx256m -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$KAFKA_JARS/*" \
        kafka.tools.StorageTool format --initial-controllers "$controllers" -t kcgKcgKcgKcgKcgKcgKcgA \
        -c "$folder/server.properties" "${broker_format[@]}" >>"$KCG_STATE/logs/$name.log" 2>&1 ||
        not_ready "$name" "formatting its storage failed"
}

# fetch_kafka FOLDER: Maven writes next to the pom.xml that it reads, so it gets a copy.
fetch_kafka() {
    local work=$1/work
    mkdir "$work"
    cp "$CLUSTER_DIR/kafka/pom.xml" "$work/"
    mvn -B -q -f "$work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$1"
    rm -rf "$work"
}

require_kafka() {
    local partial
    command -v java >/dev/null || die "Java 17 or newer is needed for Kafka: apt-get install default-jre-headless"
    [[ ! -d $KAFKA_JARS ]] || return 0
    command -v mvn >/dev/null || die "Maven is needed to fetch Kafka: apt-get install maven"
    say "fetching Kafka $KAFKA_VERSION from Maven Central (about a minute, once)"
    mkdir -p "$KCG_CACHE"
    partial=$(mktemp -d "$KAFKA_JARS.partial.XXXXXX")
    fetch_kafka "$partial"
    mv -T "$partial" "$KAFKA_JARS" 2>/dev/null || rm -rf "$partial"
}

# --- one broker ---------------------------------------------------------------------------------------

declare -A log_start=() # size of a broker's log before its latest start

# launch_broker NUMBER: does not wait.
launch_broker() {
    local name log
    local -a before=() java=("${broker_java[@]}")
    name=$(broker_name "$1")
    log=$KCG_STATE/logs/$name.log
    if ((KCG_BROKERS > 1)); then
        java=("${SMALL_JAVA[@]}")
        # By default malloc gives each of many threads its own memory pool.
        before=(env MALLOC_ARENA_MAX=2)
        # The group is how the rules of isolate_broker recognize this broker's connections.
        [[ $(id -u) != 0 ]] || before+=(setpriv --regid="$(broker_mark "$1")" --clear-groups --)
    fi
    touch "$log"
    log_start[$1]=$(stat -c %s "$log")
    # KafkaRaftServer reports the end of the start, which broker_is_ready looks for.
    start_daemon "$name" "${before[@]}" java "${java[@]}" \
        -Dorg.slf4j.simpleLogger.defaultLogLevel="$broker_log_level" \
        -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info -Dorg.slf4j.simpleLogger.showDateTime=true \
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS" -Dorg.slf4j.simpleLogger.showThreadName=false \
        -cp "$KAFKA_JARS/*" kafka.Kafka "$KCG_STATE/$name/server.properties"
}

# A broker logs this line when the controller has made it a member of the cluster.
broker_is_ready() {
    local listener name
    tail -c "+$((log_start[$1] + 1))" "$KCG_STATE/logs/$(broker_name "$1").log" | grep 'Kafka Server started' || return 1
    for listener in $broker_listeners; do
        name=${listener%%:*}
        [[ $name == INTERNAL && $KCG_BROKERS == 1 ]] || tcp_open "$HOST" "$(broker_port "$name" "$1")" || return 1
    done
}

# signal_broker NUMBER SIGNAL: does not wait.
signal_broker() {
    local pid
    pid=$(daemon_pid "$(broker_name "$1")") || die "broker $1 is not running"
    kill -s "$2" "$pid"
}

# stop_broker NUMBER SIGNAL: returns when it has ended. With TERM it hands its leaderships to other brokers first,
# for which it needs a majority of controllers; without one it is killed after a minute. Its data stays.
stop_broker() {
    # A frozen process handles only KILL.
    [[ $2 == KILL ]] || ! is_running "$(broker_name "$1")" || signal_broker "$1" CONT
    stop_daemon "$(broker_name "$1")" "$2" 60
}

# --- isolation ----------------------------------------------------------------------------------------

# All brokers have the same address, so a connection's address does not say which broker opened it. But each broker
# runs with its own group id, and the kernel marks the connections that the group opens to INTERNAL and CONTROLLER.
# The rules are only made in a network namespace, never in the network of the machine.
TABLE=(inet kafka_brokers)

# broker_mark NUMBER: group id and connection mark. Nothing else uses the group.
broker_mark() { echo $((59000 + $1)); }

broker_network() { in_netns readlink /proc/self/ns/net; }

# A process cannot always find out whether its network is the machine's (/proc/1 may be unreadable), so own_network
# says so to its command. Brokers that need nsenter (ENTER) are in the namespace of the test cluster.
in_namespace() { ((${#ENTER[@]})) || [[ ${KCG_OWN_NETWORK:-} == 1 ]]; }

can_isolate() { ((KCG_BROKERS > 1)) && [[ $(id -u) == 0 ]] && in_namespace && command -v nft >/dev/null; }

internal_ports() { echo "$(broker_port INTERNAL "$1"), $(broker_port CONTROLLER "$1")"; }

# Before the brokers start: a connection that exists already would not be marked.
mark_connections() {
    local number ports='' rules=''
    ! in_netns nft list table "${TABLE[@]}" >/dev/null 2>&1 || in_netns nft delete table "${TABLE[@]}"
    for ((number = 1; number <= KCG_BROKERS; number++)); do
        ports+=${ports:+, }$(internal_ports "$number")
    done
    for ((number = 1; number <= KCG_BROKERS; number++)); do
        rules+="meta skgid $(broker_mark "$number") tcp dport { $ports } ct mark set $(broker_mark "$number")"$'\n'
    done
    in_netns nft -f - <<END
table ${TABLE[*]} {
    chain connections {
        type filter hook output priority mangle
        $rules
    }
}
END
}

is_isolated() { in_netns nft list chain "${TABLE[@]}" "broker_$1" >/dev/null 2>&1; }

# isolate_broker NUMBER: drops what it exchanges with other brokers and their controllers, in both directions, also on
# existing connections. Clients still reach it. Connections to itself pass.
isolate_broker() {
    local mark ports
    can_isolate || die "a broker can be isolated only by root, with nft (apt-get install nftables), if there are several \
brokers, in the network of the test cluster or of own_network"
    mark=$(broker_mark "$1")
    ports=$(internal_ports "$1")
    in_netns nft -f - <<END
table ${TABLE[*]} {
    chain broker_$1 {
        type filter hook output priority filter
        ct mark $mark tcp dport { $ports } accept
        ct mark $mark tcp sport { $ports } accept
        ct mark $mark drop
        tcp dport { $ports } drop
        tcp sport { $ports } drop
    }
}
END
}

join_broker() { ! is_isolated "$1" || in_netns nft delete chain "${TABLE[@]}" "broker_$1"; }

# own_network COMMAND...: runs a command in a new network namespace that has only 127.0.0.1. The kernel removes it
# after its last process has ended.
# shellcheck disable=SC2016 # the inner shell expands these
own_network() { KCG_OWN_NETWORK=1 unshare --net -- sh -c 'ip link set lo up && exec "$@"' sh "$@"; }

# --- all brokers --------------------------------------------------------------------------------------

save_settings() {
    local broker_netns
    broker_netns=$(broker_network)
    declare -p KCG_BROKERS HOST ENTER broker_listeners broker_java broker_log_level broker_netns >"$BROKER_SETTINGS.new"
    mv "$BROKER_SETTINGS.new" "$BROKER_SETTINGS"
}

# start_brokers COUNT: starts those that are not running, and returns when they are ready. The first start formats
# the storages. Exports KAFKA_BOOTSTRAP_SERVERS.
start_brokers() {
    local number stored started=$SECONDS
    local -a starting=() formatting=()
    KCG_BROKERS=$1
    [[ $KCG_BROKERS =~ ^[1-$MAX_BROKERS]$ ]] || die "the number of brokers must be 1 to $MAX_BROKERS: $KCG_BROKERS"
    stored=$(stored_brokers)
    ((${stored:-$KCG_BROKERS} == KCG_BROKERS)) ||
        die "the data in $KCG_STATE belongs to $stored broker(s), not $KCG_BROKERS; delete the folder or use another one"
    require_kafka
    export KAFKA_BOOTSTRAP_SERVERS
    KAFKA_BOOTSTRAP_SERVERS=$(broker_addresses PLAINTEXT)
    for ((number = 1; number <= KCG_BROKERS; number++)); do
        ! is_running "$(broker_name "$number")" || continue
        ! tcp_open "$HOST" "$(broker_port PLAINTEXT "$number")" 2>/dev/null ||
            die "another process listens on $HOST:$(broker_port PLAINTEXT "$number")${port_setting:+; set $port_setting to another port}"
        starting+=("$number")
    done
    mkdir -p "$KCG_STATE/kafka" "$KCG_STATE/logs"
    save_settings
    if ((${#starting[@]} == 0)); then
        say "kafka: already running"
        return
    fi
    ((${#starting[@]} < KCG_BROKERS)) || ! can_isolate || mark_connections
    for number in "${starting[@]}"; do
        write_broker_config "$number"
        format_broker "$number" &
        formatting+=($!)
    done
    for number in "${formatting[@]}"; do wait "$number"; done
    launch_and_wait "${starting[@]}"
    say "kafka: ready at $KAFKA_BOOTSTRAP_SERVERS after $((SECONDS - started)) s"
}

# launch_and_wait NUMBER...: all at the same time, because a controller needs the majority of them.
launch_and_wait() {
    local number
    for number in "$@"; do launch_broker "$number"; done
    for number in "$@"; do wait_ready "$(broker_name "$number")" broker_is_ready "$number"; done
}

# stop_brokers: a clean shutdown; otherwise the next start reads all segments again. All at the same time.
stop_brokers() {
    local number
    local -a stopping=()
    mapfile -t stopping < <(started_brokers)
    for number in "${stopping[@]}"; do
        is_running "$(broker_name "$number")" || continue
        signal_broker "$number" CONT
        signal_broker "$number" TERM
    done
    # The last brokers may have no majority to hand their leaderships over. They are killed; Kafka's data is in files, so none
    # is lost.
    for number in "${stopping[@]}"; do stop_daemon "$(broker_name "$number")" TERM 30; done
}

kill_brokers() {
    local number
    for number in $(started_brokers); do stop_daemon "$(broker_name "$number")" KILL 10; done
}

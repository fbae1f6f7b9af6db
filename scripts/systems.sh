# shellcheck shell=bash
# Kafka brokers and a PostgreSQL server on 127.0.0.1 for one script only. bench.sh and soak.sh source this file
# after lib.sh and after they set:
#   program        "bench" or "soak": the program, and in upper case the prefix of the settings that messages name
#   KCG_STATE      folder of the brokers; their data stays there between runs
#   port           port of the broker; its controller gets the next one. With several brokers, broker N adds
#                  10 * (N - 1) to each of its ports, and each has one more, five after the first, for the others
#   database_port  port of PostgreSQL
#   broker_config  more lines for server.properties; may be empty
#   listeners      "PROXIED:PORT:ADVERTISED-PORT" for a listener whose clients go through a proxy; may be empty
# They get the functions of tests/cluster/brokers.sh, such as start_brokers and stop_brokers, and start_database,
# stop_database, build_programs, prepare_run and run_program.
: "${program:?}" "${port:?}" "${database_port:?}" "${broker_config:=}" "${listeners:=}"
# Kafka's jars, and functions that find a daemon by the state folder among its arguments.
. tests/cluster/lib.sh
# The servers run in this script's own network. PostgreSQL's folder is outside of the brokers', because its user
# must be able to read the path.
. tests/cluster/postgres.sh
# shellcheck disable=SC2034 # for the functions of postgres.sh and brokers.sh
ENTER=() HOST=127.0.0.1
database=/tmp/kcg-$program-$database_port

broker_listeners="PLAINTEXT:$port CONTROLLER:$((port + 1)) INTERNAL:$((port + 5)) $listeners"
# Every run creates its topics again.
broker_config="log.segment.delete.delay.ms=1000
$broker_config"
# shellcheck disable=SC2034 # for brokers.sh
{
    broker_java=(-Xms1g -Xmx1g -XX:+UseG1GC)
    broker_log_level=warn
    port_setting=${program^^}_PORT
}
. tests/cluster/brokers.sh

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
    stop_brokers
}

# prepare_run: locks the state folder, which file descriptor 9 holds, and stops program, brokers and database
# when the script ends.
prepare_run() {
    mkdir -p "$KCG_STATE"
    exec 9>"$KCG_STATE/lock"
    flock -n 9 || die "another $program.sh uses $KCG_STATE"
    trap clean_up EXIT
    trap 'exit 130' INT TERM
    # A killed run may have left its brokers.
    stop_brokers
    rm -f "$KCG_STATE"/logs/kafka*.log
}

# run_program ARGUMENT...: runs the program to its end. In the background, so that the script handles a signal
# at once.
run_program() {
    "$binaries/$program" "$@" 9>&- &
    program_pid=$!
    wait "$program_pid"
}

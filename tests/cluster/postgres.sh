# shellcheck shell=bash
# A PostgreSQL server below $KCG_STATE. postgres-start.sh and scripts/systems.sh source this file after
# lib.sh. The server listens on $HOST, at the port that start_postgres gets, in the network of in_netns.

# PostgreSQL refuses to run as root. setpriv executes the command in its place, as start_daemon needs it. A
# user other than root runs the server as itself.
POSTGRES_USER=()
[[ $(id -u) != 0 ]] || POSTGRES_USER=(setpriv --reuid=postgres --regid=postgres --init-groups --)

as_postgres() { in_netns "${POSTGRES_USER[@]}" "$@"; }

newest_bin() {
    local -a found
    mapfile -t found < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V)
    [[ -x ${found[-1]}/postgres ]] || die "no PostgreSQL server below /usr/lib/postgresql: apt-get install postgresql"
    echo "${found[-1]}"
}

# make_data BIN DATA
make_data() {
    rm -rf "$KCG_STATE/postgres"
    mkdir -p "$KCG_STATE/postgres" "$KCG_STATE/logs"
    [[ $(id -u) != 0 ]] || chown postgres: "$KCG_STATE/postgres"
    cd "$KCG_STATE/postgres" || return # initdb wants a working directory that its user may read
    as_postgres "$1/initdb" --pgdata="$2" --no-sync --encoding=UTF8 --locale=C.UTF-8 --username=postgres \
        --auth-local=trust --auth-host=scram-sha-256 >>"$KCG_STATE/logs/postgres.log" 2>&1 ||
        not_ready postgres "initdb failed"
    echo 'host all all all scram-sha-256' >>"$2/pg_hba.conf" # pods have their own addresses
}

# make_database PORT: created here and not by initdb, so that the next start completes an interrupted first
# start.
make_database() {
    local -a psql=(as_postgres psql -qtAX -v ON_ERROR_STOP=1 -h "$KCG_STATE/postgres" -p "$1" -U postgres)
    [[ $("${psql[@]}" -c "SELECT 1 FROM pg_roles WHERE rolname = 'kcg'") == 1 ]] ||
        "${psql[@]}" -c "CREATE ROLE kcg LOGIN PASSWORD 'kcg'"
    [[ $("${psql[@]}" -c "SELECT 1 FROM pg_database WHERE datname = 'kcg'") == 1 ]] ||
        "${psql[@]}" -c "CREATE DATABASE kcg OWNER kcg"
}

# start_postgres PORT: creates the database at the first start; returns when the server is ready.
start_postgres() {
    local bin data=$KCG_STATE/postgres/data
    bin=$(newest_bin)
    # pg_hba.conf gets its last line after everything else in the data folder exists.
    grep -qs '^host all all all' "$data/pg_hba.conf" || make_data "$bin" "$data"
    cd "$KCG_STATE/postgres" || return
    start_daemon postgres "${POSTGRES_USER[@]}" "$bin/postgres" -D "$data" -c "listen_addresses=$HOST" -c "port=$1" \
        -c "unix_socket_directories=$KCG_STATE/postgres" -c max_connections=200
    wait_ready postgres in_netns pg_isready -q -h "$HOST" -p "$1" -t 2
    make_database "$1"
    say "postgres: ready"
}

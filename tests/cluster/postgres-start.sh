#!/usr/bin/env bash
# Starts the cluster's PostgreSQL server. The first start makes the database; later ones keep the data.
. "$(dirname "$0")/lib.sh"

DATA=$KCG_STATE/postgres/data

# PostgreSQL refuses to run as root. setpriv replaces itself by the command, as start_daemon needs it.
as_postgres() { in_netns setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"; }

newest_bin() {
    local -a found
    mapfile -t found < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V)
    [[ -x ${found[-1]}/postgres ]] || die "no PostgreSQL server below /usr/lib/postgresql"
    echo "${found[-1]}"
}

make_data() {
    rm -rf "$KCG_STATE/postgres"
    mkdir -p "$KCG_STATE/postgres" "$KCG_STATE/logs"
    chown postgres: "$KCG_STATE/postgres"
    cd "$KCG_STATE/postgres" # initdb wants a working directory that its user may read
    as_postgres "$BIN/initdb" --pgdata="$DATA" --no-sync --encoding=UTF8 --locale=C.UTF-8 --username=postgres \
        --auth-local=trust --auth-host=scram-sha-256 >>"$KCG_STATE/logs/postgres.log" 2>&1 ||
        not_ready postgres "initdb failed"
    echo 'host all all all scram-sha-256' >>"$DATA/pg_hba.conf" # pods come from addresses of their own
}

# Made here and not by initdb: an interrupted first start is finished by the next one.
make_database() {
    local -a psql=(as_postgres psql -qtAX -v ON_ERROR_STOP=1 -h "$KCG_STATE/postgres" -U postgres)
    [[ $("${psql[@]}" -c "SELECT 1 FROM pg_roles WHERE rolname = 'kcg'") == 1 ]] ||
        "${psql[@]}" -c "CREATE ROLE kcg LOGIN PASSWORD 'kcg'"
    [[ $("${psql[@]}" -c "SELECT 1 FROM pg_database WHERE datname = 'kcg'") == 1 ]] ||
        "${psql[@]}" -c "CREATE DATABASE kcg OWNER kcg"
}

is_ready() { in_netns pg_isready -q -h "$HOST" -t 2; }

require_own_cluster
if is_running postgres; then
    say "postgres: already running"
    exit 0
fi
[[ -f $NETNS_FILE ]] || die "no cluster: run up.sh first"
BIN=$(newest_bin)
# pg_hba.conf gets its last line when everything else of the data folder is there.
grep -qs '^host all all all' "$DATA/pg_hba.conf" || make_data
cd "$KCG_STATE/postgres"
start_daemon postgres setpriv --reuid=postgres --regid=postgres --init-groups -- \
    "$BIN/postgres" -D "$DATA" -c "listen_addresses=$HOST" -c port=5432 \
    -c "unix_socket_directories=$KCG_STATE/postgres" -c max_connections=200
wait_ready postgres is_ready
make_database
say "postgres: ready"

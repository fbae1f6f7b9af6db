# shellcheck shell=bash
# Installs Debian packages. scripts/lib.sh and tests/cluster/setup.sh source this file.

# How long to wait for another apt, in seconds: unattended upgrades of a new machine take minutes.
APT_WAIT=600

# apt_install PACKAGE...: needs root. Waits while another program uses apt. For the locks of dpkg, apt can
# wait itself; the lock of the package lists makes `update` fail at once.
apt_install() {
    local -a apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o "DPkg::Lock::Timeout=$APT_WAIT")
    local deadline=$((SECONDS + APT_WAIT)) output
    until output=$("${apt[@]}" update 2>&1); do
        if [[ $output != *"Could not get lock"* ]] || ((SECONDS >= deadline)); then
            printf '%s\n' "$output" >&2
            return 1
        fi
        printf 'waiting for another program that uses apt\n' >&2
        sleep 5
    done
    "${apt[@]}" install -y --no-install-recommends "$@"
}

# shellcheck shell=bash
# The programs that `bench.sh --peers` measures next to the worker. bench.sh sources this file after
# systems.sh and gets PEERS and build_peers. Maven and pip build the programs from tests/bench-peers, outside
# of the checkout, once for each content of that folder and each Python version, because the packages are
# specific to it.

peers_hash() {
    {
        find tests/bench-peers -type f | LC_ALL=C sort | xargs cat
        python3 -c 'import sys; print(sys.implementation.cache_tag)' 2>/dev/null || true
    } | sha256sum | cut -c1-12
}
PEERS=$KCG_CACHE/bench-peers-$(peers_hash)

build_peers() {
    [[ ! -d $PEERS ]] || return 0
    if ! command -v mvn >/dev/null || ! command -v javac >/dev/null; then
        die "Maven and a JDK are needed for --peers: apt-get install maven default-jdk-headless"
    fi
    python3 -m pip --version >/dev/null 2>&1 ||
        die "Python and pip are needed for --peers: apt-get install python3-pip"
    say "building the peers, with jars from Maven Central and packages from PyPI (about a minute, once)"
    local partial
    mkdir -p "$KCG_CACHE"
    partial=$(mktemp -d "$PEERS.partial.XXXXXX")
    # Maven writes next to the pom.xml that it reads, so it gets a copy.
    cp -r tests/bench-peers "$partial/work"
    mvn -B -q -f "$partial/work/pom.xml" resources:resources compiler:compile jar:jar \
        dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$partial"
    mv "$partial"/work/target/bench-peers-*.jar "$partial/"
    rm -rf "$partial/work"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check --only-binary :all: --target "$partial/python" \
        -r tests/bench-peers/python/requirements.txt
    cp tests/bench-peers/python/copy_merge.py "$partial/python/"
    mv -T "$partial" "$PEERS" 2>/dev/null || rm -rf "$partial"
}

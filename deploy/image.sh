#!/usr/bin/env bash
# image.sh: builds both binaries and their images. Needs no network, except for crates that are not in cargo's
# cache. Environment variables:
#   PROFILE           release (default), dev or demo: cargo's profile
#   ENGINE            buildah (default): writes archives in the format of "docker save"; docker: its image store
#   IMAGE_REPOSITORY  prefix of the image names, default localhost
#   IMAGE_TAG         default: the version in Cargo.toml
#   BASE              base image, default scratch
#   CARGO_TARGET_DIR  default target; archives are $CARGO_TARGET_DIR/image/<name>.tar
set -euo pipefail

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$REPOSITORY"
: "${PROFILE:=release}" "${ENGINE:=buildah}" "${IMAGE_REPOSITORY:=localhost}" "${BASE:=scratch}"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPOSITORY/target}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
: "${IMAGE_TAG:=$version}"
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
out=$CARGO_TARGET_DIR/image
context=$out/context

die() { printf 'image.sh: %s\n' "$*" >&2; exit 1; }

case $PROFILE in
    dev) binaries=$CARGO_TARGET_DIR/debug ;;
    *) binaries=$CARGO_TARGET_DIR/$PROFILE ;;
esac
case $ENGINE in
    buildah | docker) command -v "$ENGINE" >/dev/null || die "$ENGINE is not installed; install it, or set ENGINE to buildah or docker" ;;
    *) die "ENGINE is $ENGINE; set it to buildah or docker" ;;
esac

# buildah stores its layers below the target folder, so that no files remain elsewhere. vfs and chroot need no
# kernel modules and no privileges beyond root.
with_buildah() {
    local command=$1
    shift
    buildah --root "$out/storage" --runroot "$out/run" --storage-driver vfs "$command" "$@"
}

# build_image TARGET NAME
build_image() {
    local image=$IMAGE_REPOSITORY/$2:$IMAGE_TAG
    local -a arguments=(-f deploy/Dockerfile --target "$1" --build-arg "BASE=$BASE" --build-arg "VERSION=$version"
        --build-arg "REVISION=$revision" -t "$image")
    if [[ $ENGINE == docker ]]; then
        docker build "${arguments[@]}" "$context"
        printf '%s\n' "$image"
        return
    fi
    with_buildah bud --quiet --isolation chroot --pull-never "${arguments[@]}" "$context" >/dev/null
    rm -f "$out/$2.tar.new"
    with_buildah push --quiet "$image" "docker-archive:$out/$2.tar.new:$image"
    mv "$out/$2.tar.new" "$out/$2.tar"
    printf '%s  %s (%s)\n' "$image" "$out/$2.tar" "$(du -h "$out/$2.tar" | cut -f1)"
}

cargo build --profile "$PROFILE" --locked --workspace \
    --bin kafka-consumer-operator --bin kafka-consumer-worker
mkdir -p "$context"
for name in operator worker; do
    deploy/rootfs.sh "$binaries/kafka-consumer-$name" "$context/$name"
done
for name in operator worker; do
    build_image "$name" "kafka-consumer-$name"
done
# The archives contain everything; the layers are no longer needed.
[[ $ENGINE == docker ]] || with_buildah rmi --all --force >/dev/null

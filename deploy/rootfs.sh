#!/usr/bin/env bash
# rootfs.sh BINARY DIRECTORY [NAME]: creates in DIRECTORY the root file system of an image that runs BINARY as
# /usr/bin/NAME (default: the name of the binary): the binary, its shared libraries and their loader, the
# certificate authorities, the user 65532, and /tmp. No shell. Replaces DIRECTORY.
set -euo pipefail

die() { printf 'rootfs.sh: %s\n' "$*" >&2; exit 1; }

(($# == 2 || $# == 3)) || die "usage: rootfs.sh BINARY DIRECTORY [NAME]"
binary=$1
root=$2
name=${3:-$(basename "$binary")}
[[ -x $binary ]] || die "$binary is not an executable file; build it first"
# The script removes DIRECTORY, so it must be empty or created by this script.
if [[ -e $root ]]; then
    [[ -f $root/etc/passwd && -d $root/usr/bin ]] || rmdir "$root" || die "$root is not a root file system of this script; remove it, or use another directory"
    rm -rf "$root"
fi
umask 022
mkdir -p "$root"/{etc/ssl/certs,usr/bin,tmp,home/nonroot}
chmod 1777 "$root/tmp"
install -m 0755 "$binary" "$root/usr/bin/$name"

# put FILE: copies the target of FILE to the path of FILE below the root.
put() { install -D -m 0755 "$(realpath "$1")" "$root$1"; }

libraries=$(LC_ALL=C ldd "$binary" 2>&1) || true
case $libraries in
    *"not a dynamic executable"* | *"statically linked"*) libraries="" ;;
    *"not found"*) die "$binary needs libraries that this machine does not have; install them:"$'\n'"$libraries" ;;
esac
# Lines are "name => /path (address)", "/path (address)" for the loader, and "linux-vdso.so.1 (address)".
while read -r library; do
    put "$library"
done < <(awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' <<<"$libraries")

# Before glibc 2.34, name lookups load these at run time, so ldd does not list them.
libc=$(awk '$1 == "libc.so.6" { print $3 }' <<<"$libraries")
if [[ -n $libc ]]; then
    for module in libnss_dns.so.2 libnss_files.so.2 libresolv.so.2; do
        [[ ! -e $(dirname "$libc")/$module ]] || put "$(dirname "$libc")/$module"
    done
fi

for bundle in "${CA_BUNDLE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    if [[ -n $bundle && -s $bundle ]]; then
        install -m 0644 "$(realpath "$bundle")" "$root/etc/ssl/certs/ca-certificates.crt"
        break
    fi
done
[[ -s $root/etc/ssl/certs/ca-certificates.crt ]] ||
    die "no certificate authorities found: install ca-certificates, or set CA_BUNDLE to a PEM file"

printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
chmod 0644 "$root"/etc/{passwd,group,nsswitch.conf}

#!/usr/bin/env bash
# fetch_prometheus.sh PINS FOLDER: unpacks Debian's Prometheus into FOLDER, without installing it; needs no root.
#
# PINS names the version and the digest of its package for each architecture. A package of that version with another digest is an error.
# Archives drop old versions: where the pinned one is gone, what the archive has instead is taken, under the archive's own signature, and a
# loud line says so. A Prometheus that is installed is taken as it is.
set -euo pipefail
pins=$1 folder=$2
program=$folder/usr/bin/prometheus
architecture=$(dpkg --print-architecture)
version=$(sed -n '/^#/d; s/ .*//p' "$pins" | head -n 1)
wanted=$(sed -n "s/^[^# ]* $architecture //p" "$pins")

loud() { printf '\n*** WARNING: %s ***\n\n' "$*" >&2; }

if installed=$(command -v prometheus); then
    mkdir -p "$(dirname "$program")"
    ln -sf "$installed" "$program"
    upstream=${version%%[+-]*}
    case $("$installed" --version 2>&1 || true) in
    *"version $upstream"[+,\ ]*) ;;
    *) loud "$installed is not version $upstream, which the tests are written for" ;;
    esac
    exit 0
fi

echo "unpacking Prometheus into $folder"
mkdir -p "$folder"
cd "$folder"
rm -f prometheus_*.deb
fetch() { apt-get download "$1" > /dev/null 2>&1; }
if fetch "prometheus=$version" || { apt-get update > /dev/null 2>&1 && fetch "prometheus=$version"; }; then
    if [ -z "$wanted" ]; then
        loud "no digest of prometheus $version is pinned for $architecture: the archive's signature alone was checked"
    else
        found=$(sha256sum prometheus_*.deb)
        if [ "${found%% *}" != "$wanted" ]; then
            rm -f prometheus_*.deb
            echo "prometheus $version for $architecture has the digest ${found%% *}, expected $wanted" >&2
            exit 1
        fi
    fi
elif fetch prometheus; then
    loud "the archive has no prometheus $version any more, which $(basename "$pins") names: took $(ls prometheus_*.deb) instead"
else
    echo "prometheus cannot be fetched: neither version $version nor another" >&2
    exit 1
fi
dpkg-deb -x prometheus_*.deb .
rm -f prometheus_*.deb

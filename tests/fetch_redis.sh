#!/usr/bin/env bash
# fetch_redis.sh FOLDER: unpacks Debian's Redis into FOLDER with the libraries that are not there, without installing it; needs no root.
#
# A server that is installed is taken as it is, Redis or Valkey. Where there is none and none can be fetched, a loud line says so: the tests of
# replicas that reach each other over a server then say that they are left out.
set -euo pipefail
folder=$1
program=$folder/usr/bin/redis-server
mkdir -p "$(dirname "$program")"

for name in redis-server valkey-server; do
    if installed=$(command -v "$name"); then
        ln -sf "$installed" "$program"
        exit 0
    fi
done

loud() { printf '\n*** WARNING: %s ***\n\n' "$*" >&2; }
works() { LD_LIBRARY_PATH=$(printf '%s:' "$folder"/usr/lib/*) "$program" --version > /dev/null 2>&1; }

if works; then exit 0; fi
echo "unpacking Redis into $folder"
cd "$folder"
folder=$PWD program=$PWD/usr/bin/redis-server
rm -f ./*.deb
packages=(redis-server redis-tools libjemalloc2 liblua5.1-0 lua-bitop lua-cjson libhiredis0.14 liblzf1)
fetch() { apt-get download "$1" > /dev/null 2>&1; }
if ! fetch redis-server; then
    apt-get update > /dev/null 2>&1 || true
    fetch redis-server || loud "no redis-server: apt-get install redis-server"
fi
# A library of another name in another Debian is missed below, by what does not start.
for package in "${packages[@]:1}"; do fetch "$package" || true; done
for package in ./*.deb; do [ -e "$package" ] && dpkg-deb -x "$package" .; done
rm -f ./*.deb
works || loud "Redis does not start: replicas over a server are NOT tested (apt-get install redis-server)"

#!/usr/bin/env bash
# Puts promtool into a file, from Debian's package prometheus: tools/promtool.sh FILE
# The package is unpacked, not installed: installed, it would start a server.
set -euo pipefail

file=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt drops its privileges for a download.
chmod 0777 "$work"

echo "Fetching promtool"
(
    cd "$work"
    if ! apt-get download --quiet=2 prometheus; then
        if [ "$(id -u)" = 0 ]; then apt-get update --quiet=2; else sudo apt-get update --quiet=2; fi
        apt-get download --quiet=2 prometheus
    fi
)
dpkg --extract "$work"/prometheus_*.deb "$work/package"
mkdir -p "$(dirname "$file")"
mv "$work/package/usr/bin/promtool" "$file"

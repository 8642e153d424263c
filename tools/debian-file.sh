#!/usr/bin/env bash
# Puts one file of a Debian package into a file of ours: tools/debian-file.sh PACKAGE PATH FILE
# The package is unpacked, not installed: installed, it would start a server. PATH may be a pattern that one file matches.
set -euo pipefail

package=$1 path=$2 file=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt drops its privileges for a download.
chmod 0777 "$work"

echo "Fetching $(basename "$path")"
(
    cd "$work"
    if ! apt-get download --quiet=2 "$package"; then
        if [ "$(id -u)" = 0 ]; then apt-get update --quiet=2; else sudo apt-get update --quiet=2; fi
        apt-get download --quiet=2 "$package"
    fi
)
dpkg --extract "$work/$package"_*.deb "$work/package"
mkdir -p "$(dirname "$file")"
# Unquoted, for the pattern.
mv "$work/package"/$path "$file"

#!/usr/bin/env bash
# Installs Debian packages, as root or through sudo: tools/debian-packages.sh PACKAGE...
set -euo pipefail

if ! command -v apt-get >/dev/null; then
    echo "bearerd needs $*, and this system has no apt-get: install it with the system's own package manager, then run make again" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=(env)
elif command -v sudo >/dev/null; then
    as_root=(sudo)
else
    echo "bearerd needs $*, and there is no sudo here: run 'apt-get install $*' as root, then make again" >&2
    exit 1
fi

install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "$@"
}

echo "Installing $*"
if ! install "$@"; then
    echo "Refreshing the package lists, then once more"
    "${as_root[@]}" apt-get update --quiet=2
    install "$@"
fi

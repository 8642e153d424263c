#!/usr/bin/env bash
# Installs the published SDK of the token API into target/peers/libiap-venv; does nothing where it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=0.3.0
venv=target/peers/libiap-venv
installed=$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("libiap"))' 2>/dev/null || true)
if [ "$installed" != "$version" ]; then
    tools/venv.sh "$venv" "libiap==$version"
fi

#!/usr/bin/env bash
# Makes a Python virtual environment with the packages given: tools/venv.sh FOLDER PACKAGE==VERSION...
set -euo pipefail

folder=$1
shift
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    "$(dirname "$0")/debian-packages.sh" python3-venv
fi
echo "Installing $* into $folder"
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check "$@"

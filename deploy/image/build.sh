#!/usr/bin/env bash
# Makes the image without a container engine, as an OCI layout: deploy/image/build.sh [BINARY [FOLDER]]
# It is the Dockerfile's image. Needs Debian and umoci. `make image` builds the binary, calls this, and runs what came out (check.py).
set -euo pipefail
cd "$(dirname "$0")/../.."

binary=${1:-target/release/bearerd} folder=${2:-target/image}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
revision=$(git rev-parse HEAD)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
created=$(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
image=$folder/oci:$version
as=()
[ "$(id -u)" = 0 ] || as=(--rootless)

mkdir -p "$folder"
deploy/image/root.sh "$binary" "$folder/root"
rm -rf "$folder/oci"
umoci init --layout "$folder/oci"
umoci new --image "$image"
umoci insert "${as[@]}" --image "$image" --history.created "$created" --history.created_by deploy/image/root.sh "$folder/root" /
umoci config --image "$image" --no-history --created "$created" --os linux --architecture "$(dpkg --print-architecture)" \
    --config.user 65532:65532 --config.workingdir / \
    --config.entrypoint /usr/local/bin/bearerd --config.cmd run --config.cmd=-c --config.cmd /etc/bearerd/bearerd.yaml \
    --config.exposedports 8080/tcp --config.exposedports 9902/tcp \
    --config.label org.opencontainers.image.title=bearerd \
    --config.label "org.opencontainers.image.description=A reverse-proxy auth sidecar: API keys in, short-lived Bearer tokens out" \
    --config.label org.opencontainers.image.licenses=Apache-2.0 \
    --config.label "org.opencontainers.image.version=$version" \
    --config.label "org.opencontainers.image.revision=$revision" \
    --config.label "org.opencontainers.image.created=$created"
umoci gc --layout "$folder/oci"
# To carry it: skopeo copy oci-archive:FILE docker://..., docker load, podman load.
tar --create --sort=name --owner=0 --group=0 --mtime="@$SOURCE_DATE_EPOCH" --file "$folder/bearerd-$version.oci.tar" -C "$folder/oci" .

unpacked=$(find "$folder/root" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
packed=$(find "$folder/oci/blobs" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
awk -v u="$unpacked" -v p="$packed" -v i="$image" 'BEGIN { printf "%s: %.1f MiB of files, %.1f MiB to transfer\n", i, u / 1048576, p / 1048576 }'
limit=${IMAGE_LIMIT_MIB:-25}
if [ "$unpacked" -gt $((limit * 1048576)) ]; then
    echo "that is more than $limit MiB" >&2
    exit 1
fi

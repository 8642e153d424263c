#!/bin/bash
# Builds what is committed twice, in two places, and compares: whoever has the same toolchain gets the same bytes from the same commit.
# Usage: tools/reproducible.sh; two release builds, a quarter of an hour. LTO=off is for a first look at what differs.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
places=$(mktemp -d "$root/target/reproducible.XXXXXX")
trap 'rm -rf "$places"' EXIT

# The paths of sources are in what panics say and in debug information: they are told as these.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
# Somebody may commit between the two builds.
commit=$(git -C "$root" rev-parse HEAD)
build() {
	git clone --quiet "$root" "$1"
	git -C "$1" checkout --quiet "$commit"
	(
		cd "$1"
		export CFLAGS="-ffile-prefix-map=$1=/bearerd -ffile-prefix-map=$cargo_home=/cargo"
		export CXXFLAGS=$CFLAGS
		export RUSTFLAGS="--remap-path-prefix=$1=/bearerd --remap-path-prefix=$cargo_home=/cargo"
		${LTO:+env CARGO_PROFILE_RELEASE_LTO=$LTO} cargo build --quiet --locked --release --bin bearerd --target-dir "$1/target"
	)
	strip --strip-all "$1/target/release/bearerd" -o "$1/bearerd"
	rm -rf "$1/target"
}
build "$places/one"
# A path of another length, too.
build "$places/and-another-one"
sha256sum "$places/one/bearerd" "$places/and-another-one/bearerd" | sed "s|$places/||"
if ! cmp --silent "$places/one/bearerd" "$places/and-another-one/bearerd"; then
	echo "the two differ" >&2
	exit 1
fi
echo "the same"

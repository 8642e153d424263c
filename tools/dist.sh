#!/usr/bin/env bash
# Builds target/dist/bearerd: the release build, guided by a profile of the benchmarks' own mix. Twice a release build's time.
# Without the LLVM tools of rustc's own version there is no profile, and the plain release build is taken; a line says so.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
build=$PWD/target/pgo/build raw=$PWD/target/pgo/raw profile=$PWD/target/pgo/bearerd.profdata

without() {
    echo "No profile: $1. This is the plain release build." >&2
    cargo build --locked --release --bin bearerd
    install -D target/release/bearerd target/dist/bearerd
    exit 0
}

if ! command -v "llvm-profdata-$llvm" >/dev/null; then
    tools/debian-packages.sh "llvm-$llvm" || without "llvm-profdata of LLVM $llvm, which rustc is built on, is not to be had"
fi
for program in nginx wrk h2load openssl; do
    command -v "$program" >/dev/null || without "$program is missing, and the load that the profile is taken from needs it (make bench-tools)"
done

rm -rf "$raw"
echo "1 of 3: a build that records"
RUSTFLAGS="-Cprofile-generate=$raw" cargo build --locked --release --bin bearerd --target "$host" --target-dir "$build"
echo "2 of 3: the load"
BEARERD=$build/$host/release/bearerd benches/train.py
"llvm-profdata-$llvm" merge -o "$profile" "$raw"
echo "3 of 3: the build that is guided by it"
RUSTFLAGS="-Cprofile-use=$profile" cargo build --locked --release --bin bearerd --target "$host" --target-dir "$build"
install -D "$build/$host/release/bearerd" target/dist/bearerd
ls -l target/dist/bearerd

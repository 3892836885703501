# What a contributor runs. `make help` lists it; CI runs the same targets.

CARGO ?= cargo
# Cargo's own variable, so that what is built is also found.
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
HERALD := $(TARGET_DIR)/debug/herald
# Where `make bench` leaves its report.
BENCH_OUT = $(or $(OUT),$(TARGET_DIR)/bench)

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build ## Build, get a nats-server, and serve: prints the address of a page that shows a first notification.
	@scripts/nats-server.sh
	@exec $(HERALD) dev

.PHONY: build
build: need-cargo ## Build the debug binary.
	$(CARGO) build --locked

.PHONY: console
console: ## Build the page of /console from sdk/js/console. What it makes is committed.
	@cd sdk/js && { [ -d node_modules ] || npm ci --silent; } && npm run --silent console

.PHONY: console-check
console-check: console ## Fail if the page in the repository is not made from its sources.
	@git diff --exit-code --stat -- src/ops/console/page || { echo "commit what make console made" >&2; exit 1; }

.PHONY: test
test: prerequisites ## Run every test, with nats-server in Docker where an engine answers, else the binary.
	@scripts/test.sh

.PHONY: faults
faults: need-cargo ## Gateways and a cluster under seeded faults: SEEDS=1..20 SECONDS=60, BLIND=1 for the counter-proof.
	@BLIND="$(BLIND)" scripts/faults.sh "$(or $(SEEDS),1..20)" "$(or $(SECONDS),60)"

.PHONY: faults-more
faults-more: need-cargo ## What else faults bring: a rolling restart, pairs, storms, thin lines, memory. Half an hour.
	@scripts/faults.sh more

.PHONY: costs
costs: need-cargo ## Count what an event, a delivery and a join cost, against tests/costs.toml: UPDATE=1 writes it.
	@scripts/costs.sh $(if $(UPDATE),update)

.PHONY: bench
bench: bench-floor ## Measure the gateway beside others: SCENARIOS= (table: half an hour), TARGETS=, ROUNDS=5, OUT=target/bench, NATS_SERVER=.
	@$(if $(NATS_SERVER),,scripts/nats-server.sh --binary)
	@$(CARGO) build --release --locked --workspace
	@mkdir -p "$(BENCH_OUT)"
	@exec $(TARGET_DIR)/release/herald-bench run --rounds "$(or $(ROUNDS),5)" --json "$(BENCH_OUT)/report.json" --markdown "$(BENCH_OUT)/report.md" \
	--svg "$(BENCH_OUT)" $(if $(NATS_SERVER),--nats-server "$(NATS_SERVER)") \
	$(if $(TARGETS),--targets "$(TARGETS)") $(if $(SCENARIOS),--scenarios "$(SCENARIOS)")

.PHONY: fuzz
fuzz: need-cargo ## Fuzz everything that reads bytes from outside: FUZZ_SECONDS=300 each, TARGETS= for some.
	@scripts/fuzz.sh "$(or $(FUZZ_SECONDS),300)" $(TARGETS)

.PHONY: check-long
check-long: ## What takes too long for every change: fuzz, faults, faults-more, clients at length. Some two hours and a half.
	@HERALD_TEST_TIMING=1 scripts/test.sh --test it -- sdk:: --include-ignored --test-threads 1
	@scripts/test.sh --test it -- keys_by_address::keycloak --include-ignored
	@$(MAKE) --no-print-directory fuzz
	@$(MAKE) --no-print-directory faults
	@$(MAKE) --no-print-directory faults-more

.PHONY: bench-peers
bench-peers: bench-floor ## Get what `make bench` compares with: nchan (as root), ws, Centrifugo, nats-server.
	@scripts/bench-peers.sh

# Beside Herald's own build: another profile, and nothing that the tests build. `make bench` always has it.
.PHONY: bench-floor
bench-floor: need-cargo
	@$(CARGO) build --release --locked --manifest-path bench/peers/Cargo.toml --target-dir "$(TARGET_DIR)/peers"

.PHONY: lint
lint: need-cargo ## Formatting, clippy, rustdoc and (where cargo-deny is installed) dependencies.
	$(CARGO) fmt --check -p herald -p herald-bench
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
	scripts/check-vendor.sh
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
	echo "cargo-deny is not installed: dependencies are not checked (cargo install --locked cargo-deny)"; \
	else $(CARGO) deny --locked check bans licenses sources && { \
	$(CARGO) deny --locked check advisories || \
	echo "Advisories are not checked, or not ok: the line above says which."; }; fi

.PHONY: check
check: lint test ## All of lint and test: what CI runs.

.PHONY: need-cargo
need-cargo:
	@command -v $(CARGO) >/dev/null || { \
	echo "Rust is missing: install it from https://rustup.rs (1.91.1 or newer)." >&2; exit 1; }

.PHONY: prerequisites
prerequisites: need-cargo
	@scripts/prerequisites.sh

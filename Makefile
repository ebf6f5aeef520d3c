# The two commands: `make run` and `make test`. Both do their own set-up on a fresh Debian machine with a Rust toolchain.

SHELL := /bin/sh
.PHONY: run test soak crash-proof check docker-setup bench bench-start bench-wear bench-stores limits image fuzz help

# The tests' own Python comes first; Debian keeps daemons outside a plain user's PATH.
TEST_PATH := $(CURDIR)/target/python/bin:$(PATH):/usr/sbin:/sbin

help:
	@echo 'make run     build, then supervise a broker on port 1883 with its files in ./darner-data'
	@echo 'make test    format, lints, licences and all tests, those with Docker included'
	@echo 'make soak    the broker in a simulated world, seed after seed, until stopped'
	@echo 'make crash-proof   the real broker killed 1,000 times under load'
	@echo 'make bench   darner and mosquitto side by side'
	@echo 'make bench-start   how soon each is back with 1,000,000 retained messages, and in how much memory'
	@echo 'make bench-wear   bytes that reach a card each day, beside mosquitto (WEAR_SECONDS: 600; as root)'
	@echo 'make bench-stores   the journal beside redb, fjall and SQLite'
	@echo 'make limits  a hostile network: what it costs in memory, and other clients in time; rewrites docs/limits.md'
	@echo 'make fuzz    each fuzz target for FUZZ_SECONDS (600); FUZZ_TARGET names one'
	@echo 'make image   the container image, as darner:latest'

run:
	@tests/setup/packages.sh run
	@cargo build --locked --quiet
	@exec target/debug/darner

# The image is built before the tests, which then find all of it in Docker's cache: a compiler beside them would disturb them.
# Some tests are about signals, which `nohup` and some CI runners have ignored.
test: docker-setup check
	@tests/setup/python.sh
	@if docker info >/dev/null 2>&1; then docker build -q . >/dev/null; fi
	@PATH="$(TEST_PATH)" env --default-signal cargo test --locked --no-fail-fast

# SEED=n begins at seed n.
soak:
	@cargo test --locked --test it sim::soak -- --ignored --nocapture

crash-proof:
	@CRASHES=1000 cargo test --locked --test it crash:: -- --nocapture

check:
	@cargo fmt --check
	@cargo clippy --locked --all-targets -- -D warnings
	@cargo clippy --locked --no-default-features -- -D warnings
	@command -v cargo-deny >/dev/null 2>&1 || cargo install --quiet --locked cargo-deny
	@cargo deny --log-level error check bans licenses sources
	@if timeout 60 cargo deny --log-level off fetch db >/dev/null 2>&1; then \
	    cargo deny --log-level error --offline check advisories; \
	else \
	    echo 'advisories: skipped, their database cannot be reached'; \
	fi

# In CI the tests with Docker must run; elsewhere they are skipped, and say so.
docker-setup:
	@tests/setup/packages.sh test
	@if tests/setup/docker.sh && tests/setup/base-images.sh; then :; \
	elif [ "$$CI" = true ]; then exit 1; \
	else echo '*** the tests with Docker are skipped: see above ***'; fi

image: docker-setup
	@docker build -t darner .

bench:
	@tests/setup/packages.sh test
	@PATH="$(TEST_PATH)" cargo bench --locked --bench throughput

bench-start:
	@tests/setup/packages.sh test
	@PATH="$(TEST_PATH)" cargo bench --locked --bench start

WEAR_SECONDS ?= 600
bench-wear:
	@tests/setup/packages.sh test
	@PATH="$(TEST_PATH)" cargo bench --locked --bench wear -- $(WEAR_SECONDS)

bench-stores:
	@cd benches/stores && cargo run --locked --release --quiet

limits:
	@tests/setup/packages.sh test
	@PATH="$(TEST_PATH)" cargo bench --locked --bench limits

# libFuzzer's instrumentation needs an unstable compiler flag, which RUSTC_BOOTSTRAP=1 permits the stable compiler. New inputs stay in target/.
FUZZ_SECONDS ?= 600
FUZZ_TARGET ?= codec session websocket proxy mosquitto_conf password_file acl_file mosquitto_db
fuzz:
	@tests/setup/packages.sh fuzz
	@command -v cargo-fuzz >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
	@set -e; for target in $(FUZZ_TARGET); do \
	    mkdir -p target/fuzz-corpus/$$target; \
	    RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz $$target target/fuzz-corpus/$$target tests/fuzz/corpus/$$target -- \
	        -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1; \
	done

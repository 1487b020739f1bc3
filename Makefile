# Thin verbs: each is a command that a person could type. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help run demo test fmt lint unit clients conformance tidy fuzz micro gates soak kills deaths hostile service bench dist deny clean
SHELL := bash

# The tests build everything once, in this profile (release without LTO).
CARGO_TEST_PROFILE := ci
FLASHLANE := $(CURDIR)/target/$(CARGO_TEST_PROFILE)/flashlane
FUZZ_SECONDS ?= 60

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build the release and serve the embedded default (ARGS="..." adds flags of `flashlane serve`)
	cargo run --release -p flashlane-gateway -- serve $(ARGS)

demo: ## A real model as throughput tier beside the simulated wafer tier; one chat turn on each
	cargo build --release -p flashlane-gateway
	FLASHLANE=$(CURDIR)/target/release/flashlane tests/demo

test: fmt lint unit clients micro gates ## Format, lints, unit tests, real clients and a real model, counts of instructions and syscalls

fmt: ## Check the format
	cargo fmt --all --check

lint: ## Clippy, warnings are errors
	cargo clippy --profile $(CARGO_TEST_PROFILE) --workspace --all-targets -- -D warnings

unit: ## The Rust tests of the whole workspace, `make tidy` among them
	cargo test --profile $(CARGO_TEST_PROFILE) --workspace --no-fail-fast
	python3 -m unittest discover --quiet benches/e2e
	python3 -m unittest discover --quiet benches/fleet
	python3 -m unittest discover --quiet benches/workload
	python3 -m unittest discover --quiet tests/soak

clients: ## Codex, the openai SDKs and llama.cpp against a running flashlane (K="..." picks tests)
	tests/setup
	tests/real-model --setup
	@# Not `cargo build`: its features differ, so that it would build half the dependencies a second time.
	cargo test --profile $(CARGO_TEST_PROFILE) --workspace --no-run
	FLASHLANE=$(FLASHLANE) .deps/venv/bin/python -m pytest tests/clients $(if $(K),-k "$(K)")

conformance: ## Autobahn's WebSocket suite against the codec (needs Python 2.7; about 10 minutes)
	tests/conformance/run

tidy: ## Sizes, forbidden words, and which crate may use which
	cargo test --profile $(CARGO_TEST_PROFILE) -p flashlane-testkit --test tidy

fuzz: ## Each fuzz target for FUZZ_SECONDS (60)
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz@0.13.2
	@# Each begins with what was found before: the inputs that are kept, and those of runs here.
	@set -e; mkdir -p fuzz/corpus; for target in $$(cargo +nightly fuzz list); do \
	  echo "== $$target, $(FUZZ_SECONDS) s"; \
	  tar -xzf "fuzz/seeds/$$target.tar.gz" -C fuzz/corpus; \
	  cargo +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1; \
	done

micro: ## Count the instructions of a token, a turn and its route on the pure path (callgrind), held to the recorded counts
	benches/micro/run

gates: ## Count instructions and syscalls of tokens and turns in the whole process, held to the recorded counts
	@# The tests' own build, for the reason above.
	cargo test --profile $(CARGO_TEST_PROFILE) --workspace --no-run
	benches/gates/run --bin $(FLASHLANE)

soak: ## SOAK_MINUTES (10) of load, churn, faults and reloads; memory, descriptors and tasks must stay what they are (ARGS="--seed N" repeats a run)
	@# The tests' own build, for the reason above.
	cargo test --profile $(CARGO_TEST_PROFILE) --workspace --no-run
	FLASHLANE=$(FLASHLANE) tests/soak/run $(ARGS)

kills: ## Kill flashlane under load KILLS (200) times, and look each time for what it had promised (ARGS="--seed N" repeats a run)
	@# The tests' own build, for the reason above.
	cargo test --profile $(CARGO_TEST_PROFILE) --workspace --no-run
	FLASHLANE=$(FLASHLANE) tests/kills $(ARGS)

hostile: ## Hostile clients against a running flashlane, what each costs held to its bound; some 3 minutes (ARGS="slow readers" picks parts)
	@# The tests' own build, for the reason above.
	cargo test --profile $(CARGO_TEST_PROFILE) --workspace --no-run
	FLASHLANE=$(FLASHLANE) tests/hostile $(ARGS)

deaths: ## Kill flashlane in the middle of a turn of the real Codex, DEATHS (50) times: it must not notice (ARGS="--seed N" repeats a run)
	tests/setup
	@# The tests' own build, for the reason above.
	cargo test --profile $(CARGO_TEST_PROFILE) --workspace --no-run
	FLASHLANE=$(FLASHLANE) tests/deaths $(ARGS)

service: ## Run the systemd units in a Debian of its own, as docs/OPERATIONS.md says (root; some 5 minutes the first time; ARGS="--suite trixie")
	@# The tests' own build, for the reason above.
	cargo test --profile $(CARGO_TEST_PROFILE) --workspace --no-run
	FLASHLANE=$(FLASHLANE) tests/service $(ARGS)

bench: ## Measure flashlane beside a do-nothing relay and the textbook gateway (ARGS="..." adds flags of `flashlane bench`); alone: benches/fleet/run, benches/workload/run, benches/store/run, benches/tokenizer/run
	benches/e2e/run $(ARGS)

dist: ## Pack the release for Linux: the stripped binary, all licences, docs and deploy/, in target/dist
	deploy/dist

deny: ## Licences, sources and banned packages of all dependencies (cargo-deny; builds it the first time, for minutes)
	@command -v cargo-deny >/dev/null || cargo install --locked --no-default-features cargo-deny@0.20.2
	cargo deny --offline check licenses bans sources

clean: ## Remove what was built and what the tests installed
	cargo clean
	rm -rf .deps

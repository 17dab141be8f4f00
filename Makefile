# `make` lists the targets. Two do everything on a fresh machine with Rust and a C compiler: demo and test.

MODEL    ?= smollm2-135m-instruct-q4_1
QUESTION ?= What is the capital of France, and what is it known for?
# Seconds that each fuzz target runs.
FUZZ_S   ?= 60
# What bench-all shows: all, or some of peers,kernels,attention,levels.
SHOW     ?= all
ORACLE   ?= ../shared/oracle

CONCERTINA := $(abspath $(or $(CARGO_TARGET_DIR),target)/release/concertina)
export CONCERTINA

# What the tests read: models as NAME.gguf, and reference logits. A test skips, and says so, where its file is absent.
CONCERTINA_ORACLE ?= $(realpath $(ORACLE))
ifneq ($(CONCERTINA_ORACLE),)
export CONCERTINA_ORACLE
endif

.PHONY: help demo build vulkan test test-large lint fmt docs wasm-check fuzz bench peers bench-all deny clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: vulkan build ## get a driver and the default model where they are missing, build, and ask a question
	@scripts/ensure-model $(MODEL) >/dev/null
	$(CONCERTINA) run --model $(MODEL) --greedy "$(QUESTION)"

build: ## build the command line, optimised
	cargo build --release --locked -p concertina-cli

vulkan:
	@scripts/ensure-vulkan

test: vulkan build ## the whole test suite, on the default model (gets what is missing, like demo)
	dir=$$(scripts/ensure-model $(MODEL)) && \
	{ scripts/ensure-model minilm >/dev/null || echo "minilm is missing: what needs it is skipped" >&2; } && \
	CONCERTINA_TEST_MODELS="$$dir" cargo test --release --locked --workspace

test-large: ## the test suite with the larger models too (750 MB more to download)
	$(MAKE) test MODEL="smollm2-135m-instruct-q4_1 qwen2.5-coder-0.5b-instruct-q4_k_m gemma-3-270m-q4_k_m"

lint: ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

fmt: ## format the code
	cargo fmt --all

docs: ## build the documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --lib

wasm-check: ## check that what a browser needs compiles for wasm32
	scripts/wasm-check

fuzz: ## fuzz the readers of model files for FUZZ_S seconds (60)
	tests/fuzz/run $(FUZZ_S)

bench: vulkan build ## prefill and decode speed of the default model on this machine, as JSON
	@scripts/ensure-model $(MODEL) >/dev/null
	$(CONCERTINA) bench prefill --model $(MODEL) --json
	$(CONCERTINA) bench decode --model $(MODEL) --json

peers: vulkan build ## the same beside llama.cpp, as a table for benches/LOG.md (needs node and npm)
	@dir=$$(scripts/ensure-model $(MODEL)) && \
	benches/compare --concertina "$(CONCERTINA)" "$$dir/$(MODEL).gguf"

bench-all: vulkan build ## all that is measured, as one document for benches/LOG.md; SHOW=kernels,levels for a part of it
	@dir=$$(scripts/ensure-model $(MODEL)) && \
	benches/run --concertina "$(CONCERTINA)" "$(SHOW)" "$$dir/$(MODEL).gguf"

deny: ## licences, advisories, sources and duplicates of dependencies (optional: needs cargo-deny)
	@cargo deny --version >/dev/null 2>&1 || { echo "run: cargo install --locked cargo-deny"; exit 1; }
	cargo deny check

clean: ## delete what was built; models in the cache stay
	cargo clean

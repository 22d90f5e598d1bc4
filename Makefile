# What each target promises is in README.md. Everything works from any directory: make -C PATH TARGET.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
CARGO ?= cargo

.PHONY: help setup build demo test quick mutants bench soak check fmt dist install gpu-kit

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## Fetch libtorch, Open MPI and libclang into .deps/ (GPU=1: CUDA libraries, too; TORCH=PYTHON: with that Python's libtorch)
	@setup/setup.sh

build: setup ## Build the binaries into target/debug/
	$(CARGO) build --workspace --bins

demo: setup ## From nothing to a trained network: phantom data, 2 workers, evaluation, predictions
	$(CARGO) build --release --workspace --bins
	@scripts/demo.sh

# The tests start the binaries, so these are built first. nextest runs no doc tests. Tests that cannot run here are listed at the end.
test: export JCS_TEST_SKIPPED ?= $(CURDIR)/.deps/skipped
test quick: export JCS_TEST_PROGRAMS = built
test: setup ## Run the test suite (cargo-nextest where it is installed, else cargo test)
	$(CARGO) build --workspace --bins
	@: > "$$JCS_TEST_SKIPPED"; rm -f target/nextest/*/junit.xml
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  profile=default; if [ "$${CI:-}" = true ]; then profile=ci; fi; \
	  echo "test: with cargo-nextest, profile $$profile"; \
	  status=0; $(CARGO) nextest run --workspace --profile "$$profile" || status=$$?; \
	  python3 scripts/timings.py "target/nextest/$$profile/junit.xml"; \
	  [ "$$status" = 0 ] || { sort -u "$$JCS_TEST_SKIPPED"; exit "$$status"; }; \
	  $(CARGO) test --workspace --doc; \
	else \
	  echo "test: with cargo test (cargo-nextest is not installed)"; \
	  RUST_TEST_THREADS=1 $(CARGO) test --workspace; \
	fi
	@echo "test: leaks of torch-ext"
	@torch-ext/tests/leaks.sh
	@echo "test: leaks of collectives"
	@collectives/tests/leaks.sh
	@sort -u "$$JCS_TEST_SKIPPED"; echo "test: $$(sort -u "$$JCS_TEST_SKIPPED" | wc -l) tests skipped"

quick: setup ## What one runs at every change: the tests that take no time, and one training of each kind
	$(CARGO) build --workspace --bins
	@$(CARGO) nextest --version >/dev/null 2>&1 || { echo "quick: needs cargo-nextest (make test does without)" >&2; exit 2; }
	@$(CARGO) nextest run --workspace --profile quick

mutants: setup ## Does a test see it when the code is wrong? SAMPLE changes a folder (8), an hour and more
	@scripts/mutants.sh

# The peers are Python's; setup/python.sh fetches them, as it does for the tests. An absolute JCS_TEST_PYTHON names another.
bench: ## Samples a second of the loader, beside PyTorch's DataLoader and webdataset (docs/loader.md)
	@[ -n "$${JCS_TEST_PYTHON:-}" ] || setup/python.sh
	$(CARGO) build --release -p data-shards --bin data-shards --example loader_bench
	@"$${JCS_TEST_PYTHON:-.deps/python/bin/python}" bench/loader.py --build "$${CARGO_TARGET_DIR:-target}/release" $(BENCH)

soak: setup ## The long tests: real slices in full, Slurm, 100 kills (CHAOS_KILLS=N), fuzzing, 10 minutes a target (FUZZ_SECONDS=N)
	@scripts/soak.sh

check: setup ## Format, lints, spelling, licences, bans, sources, advisories, docs
	@setup/tools.sh
	@scripts/check.sh

dist: setup ## Pack what runs without these sources, for CPUs (GPU=1: with CUDA), into target/dist/
	@scripts/dist.sh

install: setup ## Install into PREFIX (/usr/local), below DESTDIR if it is set
	@scripts/install.sh

gpu-kit: ## Pack what a GPU machine with PyTorch 2.11 and no Rust needs (scripts/gpu-check, gpu-bench)
	@scripts/gpu-kit.sh

fmt: ## Format the Rust sources
	$(CARGO) fmt --all

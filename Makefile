# Every task, defined once: CI and contributors call the same targets.
# Needs bash, git, make, a C compiler, cargo >= 1.95 and Python >= 3.10. The rest comes from PyPI
# and stays inside this folder.

PYTHON ?= python3
VENV ?= .venv
PYTHONS ?= 3.10 3.11 3.12 3.13

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv develop demo test test-rust test-python test-pythons lint fmt bench scale \
  pressure soak clean

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(BIN)/python

# Stamps, so that an unchanged tree is neither installed nor built again.
INSTALLED := $(VENV)/.installed
BUILT := $(VENV)/.built
PEERS := $(VENV)/.peers
# Folders too: they change when a file is removed.
SOURCES := $(shell find src -name '*.rs' -o -type d) Cargo.toml Cargo.lock pyproject.toml

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
	  | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{ printf "  %-14s %s\n", $$1, $$2 }'

venv: $(INSTALLED) ## Install the Python tools into .venv

develop: $(BUILT) ## Build the extension in release mode, into .venv

demo: $(BUILT) ## Run the example from an empty cache; with RESUME=1 from the one it left
	$(PY) examples/stdlib_report.py $(if $(RESUME),,--fresh)

test: ## Run all tests; the Python tools are installed while cargo builds
	$(MAKE) -j2 test-rust venv
	$(MAKE) test-python

test-rust: ## Run the tests of the Rust core; needs no Python
	env -u MAKEFLAGS cargo test --locked

test-python: $(BUILT) ## Run the tests of the Python package, against the release build
	$(PY) -m pytest

test-pythons: ## Run them on each of PYTHONS that this machine has
	@passed=0 failed=0 skipped=0; \
	for version in $(PYTHONS); do \
	  if ! python$$version -c '' 2>/dev/null; then \
	    echo "skipped: needs python$$version"; skipped=$$((skipped + 1)); \
	  elif CARGO_TARGET_DIR='$(CURDIR)/target/pythons' $(MAKE) test-python \
	      PYTHON=python$$version VENV=.venvs/$$version; then \
	    passed=$$((passed + 1)); \
	  else \
	    echo "failed: python$$version"; failed=$$((failed + 1)); \
	  fi; \
	done; \
	echo "pythons: $$passed passed, $$failed failed, $$skipped skipped"; \
	[ $$failed = 0 ]

lint: $(BUILT) ## Check format, lints, docs, types, stubs and layers
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	PYO3_PYTHON='$(abspath $(PY))' cargo clippy --locked --all-targets --features python -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps
	cargo test --locked --test layering
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) -m mypy
	$(PY) -m mypy.stubtest cachetronomy._core

fmt: $(INSTALLED) ## Format all code, and fix the lints that can fix themselves
	cargo fmt
	$(PY) -m ruff check --fix-only
	$(PY) -m ruff format

bench: $(BUILT) $(PEERS) ## Measure against the peers
	$(PY) benches/bench.py
	$(PY) benches/async_bench.py

scale: $(BUILT) ## Measure clearing by tag and sweeping in a small and a large file
	$(PY) benches/scale.py

pressure: $(BUILT) ## Show that eviction under memory pressure keeps a process alive
	@status=0; $(PY) benches/memory_pressure.py || status=$$?; [ $$status = 0 ] || [ $$status = 77 ]

soak: $(BUILT) ## Run the stress and crash harnesses for some ten minutes
	CACHETRONOMY_FRESHNESS_SECONDS=120 CACHETRONOMY_CRASH_ROUNDS=200 CACHETRONOMY_MODEL_CASES=2000 \
	  cargo test --locked --test freshness --test crash --test model -- --nocapture
	CACHETRONOMY_INCR_ROUNDS=5000 CACHETRONOMY_ONCE_ROUNDS=1000 CACHETRONOMY_SWITCH_SECONDS=10 \
	CACHETRONOMY_PROCESS_ROUNDS=1000 CACHETRONOMY_LEASE_KILLS=50 CACHETRONOMY_LEASE_SECONDS=30 \
	CACHETRONOMY_CANCELLATIONS=10000 CACHETRONOMY_CLIENTS=1000 CACHETRONOMY_KEY_EXAMPLES=3000 \
	  $(PY) -m pytest --timeout=600 tests_py/test_atomic_races.py tests_py/test_compute_once_races.py \
	  tests_py/test_compute_once_processes.py tests_py/test_lease.py tests_py/test_switching.py \
	  tests_py/test_async_cancellation.py tests_py/test_async_leaks.py tests_py/test_key_properties.py
	CACHETRONOMY_LAG_SECONDS=20 CACHETRONOMY_EXITS=20 $(PY) -m pytest -n0 --timeout=600 -rP \
	  tests_py/test_loop_lag.py tests_py/test_async_loops.py

clean: ## Remove everything that is built or cached
	rm -rf target dist .venv .venvs .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f python/cachetronomy/_core.*.so python/cachetronomy/_core*.pyd
	find python tests_py examples benches -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): requirements-dev.txt
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	grep -v '^-e ' requirements-dev.txt >$(VENV)/requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-compile \
	  -r $(VENV)/requirements.txt
	touch $@

$(PEERS): $(INSTALLED) requirements-bench.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	touch $@

$(BUILT): $(INSTALLED) $(SOURCES)
	env -u CONDA_PREFIX VIRTUAL_ENV='$(abspath $(VENV))' \
	  $(PY) -m maturin develop --release --locked
	touch $@

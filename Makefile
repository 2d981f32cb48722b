# Every target does its own set-up: a fresh machine needs Python 3.11+, git and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST_ARGS ?=
SEEDS ?= 200
CHAOS_SEED ?= 1
BENCH ?=

.DEFAULT_GOAL := help
.PHONY: help install demo demo-real test check format bench sim soak docs control-plane schemas lock clean

help:  ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)  ## Make .venv with the hash-locked dependencies and the reconciler command

# An environment without pip is what a failed or interrupted set-up leaves behind: it is made anew.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "reconciler needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo "making $(VENV) ..."; \
	  $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "Python cannot make environments here: install its venv module (Debian: python3-venv)" >&2; exit 1; }; }
	@echo "installing the dependencies ..."
	@$(PIP) install --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --no-index --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## Play the main job: a simulated fleet moves in gated waves (about a minute)
	@$(BIN)/reconciler demo

demo-real: control-plane  ## The same on three real control planes: etcd and kube-apiserver (about 1.5 GB of memory)
	@$(BIN)/reconciler demo --control-plane real

test: $(STAMP)  ## Run the tests; those on a real control plane run where `make control-plane` has built one
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

check: $(STAMP)  ## Lint, format check, types, import rules, docs tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_docs.py

format: $(STAMP)  ## Format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: control-plane  ## Run the benchmarks and write raw results to bench/results/ (BENCH="B1 --repeats 3"; hours)
	$(BIN)/python -m bench $(BENCH)

sim: $(STAMP)  ## Run 200 seeds of the simulator with all its invariants (SEEDS=n)
	$(BIN)/python -m reconciler.sim --seeds $(SEEDS)

soak: $(STAMP)  ## The long proofs: 10,000 seeds of the simulator, mutants, an hour of chaos on a real API server
	$(BIN)/python -m reconciler.sim --seeds 10000 --output bench/results/soak.json
	$(BIN)/python -m tests.sim.mutants
	$(BIN)/python -m tests.chaos --seed $(CHAOS_SEED) --minutes 60 --output bench/results/chaos.json

docs: $(STAMP)  ## Check the docs against the code: links, commands, settings, examples
	$(BIN)/python -m pytest -q tests/test_docs.py tests/core/test_spec_pages.py

control-plane: $(STAMP)  ## Build a real kube-apiserver, kube-controller-manager and etcd (needs Go, Maven; cached)
	@$(BIN)/python -m tests.control_plane.build

schemas: control-plane  ## Derive the simulator's schema tables from the real API server and the Flink CRDs
	$(BIN)/python -m tests.control_plane.schemas

LOCK := build/lock/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --no-header --quiet
lock:  ## Resolve the dependencies anew: requirements.lock, and from it what the image needs (hashes, no addresses)
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --quiet --disable-pip-version-check install uv
	$(LOCK) --group dev --upgrade --output-file requirements.lock
	$(LOCK) --constraint requirements.lock --upgrade --output-file deploy/requirements.lock

clean:  ## Remove the environment and caches in this checkout
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build

# Every target does its own set-up: a fresh machine needs Python 3.11+, git and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench sim soak docs control-plane schemas lock clean

help:  ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Make .venv with the hash-locked dependencies and the reconciler command

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "reconciler needs Python 3.11 or newer; set PYTHON=python3.x"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## Play the main job: a simulated fleet moves in gated waves (about a minute)
	@$(BIN)/reconciler demo

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

bench: $(STAMP)  ## Run the benchmarks and write raw results to bench/results/
	$(BIN)/python -m bench

sim: $(STAMP)  ## Run 200 seeds of the simulator with all its invariants
	$(BIN)/python -m reconciler.sim --seeds 200

soak: $(STAMP)  ## The long proofs: 10,000 simulator seeds
	$(BIN)/python -m reconciler.sim --seeds 10000 --output bench/results/soak.json

docs: $(STAMP)  ## Check the docs against the code
	$(BIN)/python -m pytest -q tests/test_docs.py

control-plane: $(STAMP)  ## Build a real kube-apiserver, kube-controller-manager and etcd (needs Go; cached)
	$(BIN)/python -m tests.control_plane.build

schemas: control-plane  ## Derive the simulator's schema tables from the real API server and the Flink CRDs
	$(BIN)/python -m tests.control_plane.schemas

lock: $(STAMP)  ## Resolve requirements.lock anew (hashes, no download addresses)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --upgrade --quiet --output-file requirements.lock

clean:  ## Remove the environment and caches in this checkout
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build

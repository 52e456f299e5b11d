# Everything a developer types. Targets fetch what they need on the first run and are quick on the second.
# Assumed on the machine: make, a POSIX shell, and Python 3.11 or newer with pip or venv.

PYTHON ?= python3
JOBS ?= 2
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV := $(or $(shell command -v uv 2>/dev/null),.tools/uv/bin/uv)
UV_BOOTSTRAP := $(filter .tools/%,$(UV))
INSTALL := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip install

MEMBERS := $(patsubst %/pyproject.toml,%,$(wildcard libs/*/pyproject.toml services/*/pyproject.toml))
MEMBER_FILES := pyproject.toml $(MEMBERS:=/pyproject.toml)
EDITABLES := --no-deps --no-build-isolation $(foreach member,$(MEMBERS),-e ./$(member))

PYTEST := $(BIN)/python -m pytest
FAST_TESTS := tests/unit tests/property tests/golden tests/contract

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory --no-builtin-rules

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- set-up ---------------------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.dev.stamp assets jars ## Install everything a developer needs: packages, web assets, Kafka's jars

.PHONY: setup-system
setup-system: ## Install what some tests need of the machine (Debian: chromium strace libfaketime); needs root
	@tools/setup-system

.PHONY: setup-mlflow
setup-mlflow: $(VENV)/.mlflow.stamp ## Install MLflow, for the tests that drive headrace by it and import from it, in an environment of its own

.PHONY: setup-modelsigning
setup-modelsigning: $(VENV)/.modelsigning.stamp ## Install OpenSSF's model_signing, for the tests that hold our signatures against it, likewise

.PHONY: assets
assets: $(VENV)/.assets.stamp ## Fetch the web console's JavaScript

.PHONY: jars
jars: $(VENV)/.jars.stamp ## Fetch Kafka's jars into the user's cache

# pip where Python has it, else a virtual environment's. The digests in requirements-uv.lock are verified.
.tools/uv/bin/uv: requirements-uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "headrace needs Python 3.11 or newer; '$(PYTHON)' is `$(PYTHON) --version 2>&1`. Name another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "fetching uv into .tools/"
	@rm -rf .tools/uv
	@if $(PYTHON) -m pip --version >/dev/null 2>&1; then pip="$(PYTHON) -m pip"; \
	elif $(PYTHON) -m venv .tools/python >/dev/null 2>&1; then pip=.tools/python/bin/pip; \
	else echo "'$(PYTHON)' has neither pip nor venv; on Debian: apt-get install python3-venv" >&2; exit 1; fi; \
	$$pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action=ignore --no-deps --require-hashes --target .tools/uv -r requirements-uv.lock
	@touch $@

$(BIN)/python: | $(UV_BOOTSTRAP)
	@$(UV) venv --quiet --allow-existing --python "$(PYTHON)" $(VENV)

$(VENV)/.run.stamp: requirements.lock $(MEMBER_FILES) | $(BIN)/python
	@echo "installing what headrace needs to run"
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --quiet $(EDITABLES)
	@touch $@

$(VENV)/.dev.stamp: requirements-dev.lock $(MEMBER_FILES) | $(BIN)/python
	@echo "installing what developing headrace needs"
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@$(INSTALL) --quiet $(EDITABLES)
	@touch $@ $(VENV)/.run.stamp

# Apart from ours: what MLflow pins is its own affair.
$(VENV)/.mlflow.stamp: requirements-mlflow.lock | $(BIN)/python
	@echo "installing MLflow"
	@$(UV) venv --quiet --allow-existing --python "$(PYTHON)" $(VENV)/mlflow
	@VIRTUAL_ENV=$(CURDIR)/$(VENV)/mlflow $(UV) pip install --quiet --require-hashes -r requirements-mlflow.lock
	@touch $@

$(VENV)/.modelsigning.stamp: requirements-modelsigning.lock | $(BIN)/python
	@echo "installing model_signing"
	@$(UV) venv --quiet --allow-existing --python "$(PYTHON)" $(VENV)/modelsigning
	@VIRTUAL_ENV=$(CURDIR)/$(VENV)/modelsigning $(UV) pip install --quiet --require-hashes -r requirements-modelsigning.lock
	@touch $@

$(VENV)/.assets.stamp: package.json package-lock.json .npmrc tools/assets.py | $(VENV)/.run.stamp
	@$(BIN)/python tools/assets.py
	@touch $@

$(VENV)/.jars.stamp: jgo.lock.toml | $(VENV)/.run.stamp
	@$(BIN)/python tools/jars.py
	@touch $@

# --- checks ---------------------------------------------------------------------------------------------------------------------

.PHONY: gen
gen: $(VENV)/.dev.stamp ## Generate the Python API from protos/
	@$(BIN)/python tools/generate.py

# What was published: `make lint` holds the protos to it. It grows, and never takes anything back.
BASELINE := protos/baseline.binpb

.PHONY: baseline
baseline: $(VENV)/.dev.stamp ## Publish protos/ as they are: renew the image that no change may break
	$(BIN)/buf breaking --against $(BASELINE)
	$(BIN)/buf build --exclude-source-info -o $(BASELINE)

.PHONY: golden
golden: $(VENV)/.dev.stamp ## Write the golden bytes of new event types; those there are stay as they are
	@$(BIN)/python -m tools.golden

.PHONY: lint
lint: $(VENV)/.dev.stamp ## Check style, formatting, import contracts, protos, and that what is generated is current
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking --against $(BASELINE)
	$(BIN)/python tools/generate.py --check
	$(BIN)/python -m tools.docs --check

.PHONY: types
types: $(VENV)/.dev.stamp ## Check types with mypy and pyright, both strict
	$(BIN)/mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

# Tests that share running servers stay in one process (see tests/support/needs.py).
.PHONY: test
test: setup ## Run every test this machine can run (JOBS=2 processes)
	@$(PYTEST) -n $(JOBS) $(ARGS)

.PHONY: test-fast
test-fast: $(VENV)/.dev.stamp ## Run the unit, property, golden and contract tests
	@$(PYTEST) $(wildcard $(FAST_TESTS)) $(ARGS)

.PHONY: simulate
simulate: $(VENV)/.dev.stamp ## Simulate the event backbone: SEEDS=10000 runs many (FROM=0), SEED=n replays one
	@$(BIN)/python -m tests.simulation --jobs $(JOBS) --from $(or $(FROM),0) --seeds $(or $(SEEDS),1000) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: soak
soak: setup ## Load and faults on real processes for SECONDS=3600, a sixth of them without Kafka (SEED=1)
	@HEADRACE_SOAK_S=$(or $(SECONDS),3600) HEADRACE_SOAK_SEED=$(or $(SEED),1) $(PYTEST) tests/chaos/backbone/test_soak.py -s $(ARGS)

.PHONY: bench
bench: setup setup-mlflow ## Measure, also beside a real MLflow server, and write docs/benchmarks.md
	@PYTHONPATH=examples $(BIN)/python -m tests.bench $(ARGS)

.PHONY: bench-scaling
bench-scaling: setup ## Measure searches and charts of 1,000 to RUNS=1000000 runs, and write docs/scaling.md
	@$(BIN)/python -m tests.bench.scaling $(RUNS)

# --- running --------------------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.run.stamp assets jars ## Run the closed loop on a year of flights (KEEP=1 leaves it running)
	@$(BIN)/headrace demo $(ARGS)

.PHONY: up
up: $(VENV)/.run.stamp assets jars ## Start the local stack and stay in the foreground
	@$(BIN)/headrace up $(ARGS)

.PHONY: down
down: $(VENV)/.run.stamp ## Stop the local stack
	@$(BIN)/headrace down $(ARGS)

# --- upkeep ---------------------------------------------------------------------------------------------------------------------

.PHONY: docs
docs: $(VENV)/.dev.stamp ## Generate docs/events.md and docs/asyncapi.json from the protos, docs/tables.md from the code
	@$(BIN)/python -m tools.docs

# The locks hold no host names and no paths, and the same versions. (uv.lock would hold hosts, so it is not committed.)
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	--custom-compile-command "make lock"
NO_MEMBERS := $(foreach name,headrace $(addprefix headrace-,kit local $(notdir $(wildcard services/*))),--no-emit-package $(name))

.PHONY: lock
lock: | $(UV_BOOTSTRAP) ## Renew the locks, keeping versions that still fit (ARGS=--upgrade takes newer ones)
	$(COMPILE) $(NO_MEMBERS) $(ARGS) $(MEMBER_FILES) --group dev -o requirements-dev.lock
	$(COMPILE) $(NO_MEMBERS) -c requirements-dev.lock $(MEMBER_FILES) -o requirements.lock
	$(COMPILE) $(ARGS) --group mlflow -o requirements-mlflow.lock
	$(COMPILE) $(ARGS) --group modelsigning -o requirements-modelsigning.lock
	echo "uv==$(UV_VERSION)" | $(COMPILE) - -o requirements-uv.lock

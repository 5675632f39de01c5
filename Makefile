# The one door to the house: every target prepares what it needs. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := src tests scripts $(wildcard bench)
KEEP ?= 0
TESTS ?= tests

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

# --- the environment -------------------------------------------------------------------------------------------------

$(VENV)/.made: scripts/make_venv.sh requirements/debian.txt
	@sh scripts/make_venv.sh $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.made requirements/runtime.txt requirements/dev.txt pyproject.toml scripts/install.sh
	@sh scripts/install.sh $(VENV) runtime
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@sh scripts/install.sh $(VENV) dev
	@touch $@

# --- what users type -------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.runtime ## the whole fleet on this machine, one village custom, two minutes (KEEP=1 leaves it running)
	@echo "demo: starting Pumasi on the Korean plan"
	@$(BIN)/pumasi demo $(if $(filter 1,$(KEEP)),--keep)

.PHONY: demo-slurm
demo-slurm: $(VENV)/.runtime ## the custom on five real Slurm clusters, started here (KEEP=1 keeps their logs)
	@sh scripts/install_slurm.sh
	@$(BIN)/pumasi demo --slurm $(if $(filter 1,$(KEEP)),--keep)

.PHONY: test
test: $(VENV)/.dev ## all tests (TESTS=tests/plans for some)
	@sh scripts/install_slurm.sh
	@echo "test: pytest $(TESTS)"
	@$(BIN)/python -m pytest $(TESTS)

.PHONY: check
check: lint types layers test ## what must hold before a commit: format, lint, types, layers, tests

.PHONY: bench
bench: $(VENV)/.dev ## measure, write bench/results/*.json and print tables
	@echo "bench: measuring; close what else runs on this machine"
	@$(BIN)/python -m bench

.PHONY: bench-twin
bench-twin: $(VENV)/.dev $(VENV)-accasim/.made ## the speed of the twin, with AccaSim beside it; writes bench/results/twin.json
	@echo "bench-twin: measuring; close what else runs on this machine"
	@$(BIN)/python -m bench.twin

.PHONY: bench-scheduler
bench-scheduler: $(VENV)/.dev ## what a decision costs on 260,000 GPUs, real Slurm beside it; writes bench/results/scheduler.json
	@sh scripts/install_slurm.sh
	@echo "bench-scheduler: measuring; close what else runs on this machine"
	@$(BIN)/python -m bench.scheduler

.PHONY: bench-quality
bench-quality: $(VENV)/.dev ## what is allocated of what could be, against a linear program; writes bench/results/quality.json
	@$(BIN)/python -m bench.quality
	@$(BIN)/python -m bench.openb
	@$(BIN)/python -m bench.estimate
	@$(BIN)/python -m bench.quarantine

$(VENV)-accasim/.made: $(VENV)/.dev
	@$(BIN)/uv venv --quiet --python $(BIN)/python $(VENV)-accasim
	@$(BIN)/uv pip install --quiet --python $(VENV)-accasim/bin/python accasim==1.1.3
	@touch $@

RUNS ?= 50

.PHONY: chaos bench-slurm fidelity
chaos: $(VENV)/.dev ## kill and silence Slurm, agents, nodes, control plane at bad moments (RUNS=50 of each); writes docs/reference/chaos.md
	@sh scripts/install_slurm.sh
	@PUMASI_HOSTILE_STORIES=10000 $(BIN)/python -m pytest tests/agents/slurm/test_hostile.py
	@$(BIN)/python -m tests.slurm.chaos $(RUNS)

bench-slurm: $(VENV)/.dev ## Pumasi beside plain sbatch on the same real clusters; writes bench/results/slurm.json
	@sh scripts/install_slurm.sh
	@$(BIN)/python -m bench.slurm

fidelity: $(VENV)/.dev ## the same jobs on five real clusters and in the twin, start for start; writes into the same file
	@sh scripts/install_slurm.sh
	@$(BIN)/python -m bench.slurm_fidelity

# --- the parts of check ----------------------------------------------------------------------------------------------

.PHONY: lint types layers fmt
lint: $(VENV)/.dev ## format and lint, changing nothing
	@echo "lint: ruff format, ruff check"
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)

types: $(VENV)/.dev ## mypy, strict
	@echo "types: mypy --strict"
	@$(BIN)/mypy

layers: $(VENV)/.dev ## the import contracts
	@echo "layers: import-linter"
	@$(BIN)/lint-imports

fmt: $(VENV)/.dev ## format, and mend what lint can mend
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

# --- housekeeping ----------------------------------------------------------------------------------------------------

.PHONY: docs lock clean
docs: $(VENV)/.dev ## write the generated pages and openapi/openapi.json again
	@$(BIN)/python scripts/draw_state_machines.py
	@$(BIN)/python scripts/write_cli_reference.py
	@$(BIN)/python -m scripts.write_museum
	@$(BIN)/python -m pumasi.api > openapi/openapi.json.new
	@mv openapi/openapi.json.new openapi/openapi.json

lock: $(VENV)/.dev ## resolve the dependencies anew and lock them with hashes (UPGRADE=1: to the newest)
	@sh scripts/lock.sh $(BIN)/uv $(if $(filter 1,$(UPGRADE)),--upgrade)

clean: ## remove what can be made again
	@echo "clean: environment, caches, builds"
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two commands on a fresh machine: make demo, make test. Needs Python 3.11 to 3.13 with venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := test
# Tests run small tensors in several processes: one thread each, or they fight over the cores.
# Half of their time is waiting for servers, hence two of them at once, on two cores as well.
TEST_ENV := OMP_NUM_THREADS=1
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Nothing is built on a person's machine but this project itself: a package without a wheel fails here.
INSTALL := $(PIP) install --quiet --only-binary=:all: -c constraints.txt

# make up: PORT of the UI, RUNS for results, CORPUS that the forms propose, STATE for what is started.
PORT := 4200
RUNS := runs
CORPUS :=
STATE := .spikeline

.DEFAULT_GOAL := help
# docs is also a folder.
.PHONY: help install demo up down test test-infra lint docs format constraints clean faults fuzz soak \
  audit sbom bench-plan bench-projection bench-recurrence bench-event-driven bench-features \
  bench-epoch bench-scaling \
  bench-alignment bench-serve

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
	  awk -F '\t' '{ printf "  make %-18s %s\n", $$1, $$2 }'

install: $(STAMP)  ## Make .venv with the pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
	  { echo "make: no $(PYTHON) here; install Python 3.11, 3.12 or 3.13, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "make: $(PYTHON) is not Python 3.11, 3.12 or 3.13; run make PYTHON=python3.13 (or one of these)" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "make: $(PYTHON) has no venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): some minutes the first time"
	$(INSTALL) -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)  ## Run the whole pipeline on synthetic speech
	$(BIN)/spikeline demo

up: $(STAMP)  ## Start Prefect, with a worker (PORT= RUNS= CORPUS=)
	@$(BIN)/python -m infra.local_stack up --state $(STATE) --port $(PORT) --runs "$(RUNS)" --corpus "$(CORPUS)"

down: $(STAMP)  ## Stop what make up started
	@$(BIN)/python -m infra.local_stack down --state $(STATE)

test: $(STAMP)  ## Run the tests
	$(TEST_ENV) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-infra: $(STAMP)  ## Run the tests that take minutes: lost nodes, browser
	$(TEST_ENV) $(BIN)/python -m pytest -m cluster

lint: $(STAMP)  ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)  ## Build the documentation pages (build/docs/index.html)
	$(BIN)/python -m mkdocs build --quiet --strict

format: $(STAMP)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each writes evaluation/results/NAME.md; with SMALL=1 it shows that it runs, and writes nothing.
# ARGS are more of its options (ARGS=--help lists them).
BENCH = $(BIN)/python -m tests.benchmarks.bench_$(subst -,_,$(patsubst bench-%,%,$@)) \
  $(if $(SMALL),--small,--record evaluation/results/$(1).md) $(ARGS)

bench-projection: $(VENV)/.installed-bench  ## Every stage at 960 and 60,000 hours, by arithmetic
	$(call BENCH,projection)

bench-plan: $(VENV)/.installed-bench  ## What a million utterances cost before the first training step
	$(call BENCH,plan)

bench-recurrence: $(VENV)/.installed-bench  ## Training steps beside LSTM, GRU and spiking libraries
	$(call BENCH,recurrence)

bench-event-driven: $(VENV)/.installed-bench  ## The engine beside others (MODEL=runs/training/FP)
	$(call BENCH,event-driven) $(if $(MODEL),--model "$(MODEL)")

bench-features: $(VENV)/.installed-bench  ## Feature extraction beside other tools
	$(call BENCH,features)

bench-epoch: $(VENV)/.installed-bench  ## An epoch through Ray Train (FEATURES=runs/align/FP)
	@test -n "$(FEATURES)" || { echo "make: name a feature set: make bench-epoch FEATURES=runs/align/FP" >&2; exit 2; }
	$(call BENCH,epoch) "$(FEATURES)"

bench-alignment: $(VENV)/.installed-bench  ## Boundaries beside known ones (ARGS="--timit ROOT --speech NAME=ROOT:GRIDS")
	$(call BENCH,alignment)

bench-scaling: $(VENV)/.installed-bench  ## What every stage costs as speech and workers grow
	$(call BENCH,scaling)

bench-serve: $(VENV)/.installed-bench  ## Streams at once in real time (MODEL=engine.spikes SPEECH=folder)
	@test -n "$(MODEL)" -a -n "$(SPEECH)" || { echo "make: make bench-serve MODEL=engine.spikes SPEECH=/data/LibriSpeech/test-mini" >&2; exit 2; }
	$(call BENCH,serve) --model "$(MODEL)" --speech "$(SPEECH)"

$(VENV)/.installed-bench: $(STAMP)
	$(INSTALL) -e '.[bench]'
	@touch $@

# How many damaged inputs of each format, kill points of each crash row, seconds of soaking.
INPUTS ?= 2000
POINTS ?= 20
SECONDS ?= 1800
SEED ?= 0

faults: $(STAMP)  ## Inject every fault for real (POINTS=20 SEED=0)
	$(TEST_ENV) $(BIN)/python -m tests.faults.run --points $(POINTS) --seed $(SEED) --record evaluation/results/faults.md

fuzz: $(STAMP)  ## Read damaged inputs (INPUTS=2000 SEED=0)
	$(TEST_ENV) $(BIN)/python -m tests.hostile.run --inputs $(INPUTS) --seed $(SEED) --record evaluation/results/damaged-inputs.md

soak: $(STAMP)  ## Train in a loop with random kills (SECONDS=1800)
	$(TEST_ENV) $(BIN)/python -m tests.faults.soak --seconds $(SECONDS) --seed $(SEED) --record evaluation/results/soak.md

# The tools of the supply chain stand apart, or the bill of materials would list them.
TOOLS := $(VENV)-supply-chain

$(TOOLS)/.installed: infra/supply-chain.txt
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet -r infra/supply-chain.txt
	@touch $@

audit: $(STAMP) $(if $(ONLINE),$(TOOLS)/.installed)  ## Hold .venv against its pins, ONLINE=1 for more
	PATH="$(TOOLS)/bin:$$PATH" $(BIN)/python -m tests.supply_chain.audit $(if $(ONLINE),--online)

sbom: $(STAMP) $(TOOLS)/.installed  ## Write the bill of materials (build/sbom.json)
	@mkdir -p build
	$(TOOLS)/bin/cyclonedx-py environment --output-reproducible --output-format JSON --output-file build/sbom.json $(BIN)/python

# One resolution for Linux and Python 3.11 to 3.13; pins stay as they are unless UPGRADE=1.
constraints: $(TOOLS)/.installed  ## Pin the dependencies again (UPGRADE=1: the newest)
	$(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras --only-binary :all: \
	  --no-annotate --no-header --no-emit-index-url $(if $(UPGRADE),--upgrade) --output-file constraints.txt pyproject.toml
	sed -i "s/ ; python_full_version < '3.14' and sys_platform == 'linux'$$//" constraints.txt

clean:  ## Remove the environment and the caches; results stay
	rm -rf $(VENV) $(TOOLS) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

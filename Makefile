# Two commands on a fresh machine: make demo, make test. Needs Python 3.11 or newer with venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := test,decoding
# Tests run small tensors in several processes: one thread each, or they fight over the cores.
TEST_ENV := OMP_NUM_THREADS=1
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench constraints clean

help:  ## Show this help
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
	  awk -F '\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

install: $(STAMP)  ## Make .venv with the pinned dependencies (again only when they change)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
	  { echo "make: no $(PYTHON) here; install Python 3.11 or newer, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than 3.11; run make PYTHON=python3.11 (or newer)" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "make: $(PYTHON) has no venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): some minutes the first time"
	$(PIP) install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)  ## Run the whole pipeline on synthetic speech; ends on a table
	$(BIN)/spikeline demo

test: $(STAMP)  ## Run the tests
	$(TEST_ENV) $(BIN)/python -m pytest

lint: $(STAMP)  ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench  ## Measure this machine beside other tools
	$(BIN)/spikeline bench features
	$(BIN)/spikeline bench training
	$(BIN)/spikeline bench recurrence

$(VENV)/.installed-bench: $(STAMP)
	$(PIP) install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

constraints: $(VENV)/.installed-bench  ## Pin what .venv holds in constraints.txt
	$(PIP) install --quiet -c constraints.txt -e '.[browser,tracking]'
	$(PIP) freeze --all --exclude-editable --exclude spikeline --exclude pip | grep -E '^[A-Za-z0-9._-]+==' > constraints.tmp
	mv constraints.tmp constraints.txt
	@touch $(STAMP) $(VENV)/.installed-bench

clean:  ## Remove the environment and the caches; results are kept
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

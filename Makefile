# make demo: see a program of LM calls improve. make test: run the tests. Installs what is needed, once.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# quiet where nobody watches
QUIET := $(shell test -t 2 || echo -qq)
PIP = $(BIN)/python -m pip install $(QUIET) --disable-pip-version-check
META = pyproject.toml setup.cfg constraints.txt
# the constraint is for PyTorch's CPU build; an index or a Python without that version gets another one
ARGS =
# the tests run in a process for each core, at most four, and those of a file in one of them; DIST= is a single process
DIST = -n logical --maxprocesses 4 --dist loadfile

# tests start hundreds of processes, which read what is compiled
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL = help
.PHONY: help demo test lint format pocket bench-env bench bench-optimizers clean

help: ## say what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo ## run examples/quickstart.py on the embedded model, offline
	@$(BIN)/python examples/quickstart.py $(ARGS)

test: $(VENV)/.dev ## run the test suite; ARGS="tests/nn -x" runs a part
	@$(BIN)/python -m pytest $(DIST) $(ARGS)

lint: $(VENV)/.dev ## check format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## format and mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

pocket: $(VENV)/.dev ## train the embedded model again, within an hour on a CPU, and measure what it can do
	@$(BIN)/python benchmarks/pocket/train.py $(ARGS)
	@$(BIN)/python benchmarks/pocket/evaluate.py

bench-env: .venv-bench/.done ## make the benchmarks' own environment, with the peers

bench: .venv-bench/.done ## run every benchmark in it
	@for script in benchmarks/time_*.py; do .venv-bench/bin/python $$script || exit 1; done

bench-optimizers: .venv-bench/.done ## ours and the peers at equal LM calls, in simulated worlds; ARGS="--table" prints the table
	@.venv-bench/bin/python benchmarks/bench_optimizers.py $(ARGS)

clean: ## remove environments and caches
	rm -rf .venv .venv-bench build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "promptgrad needs Python 3.10 or newer; make PYTHON=python3.12 chooses another")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(META) | $(BIN)/python
	@echo "installing promptgrad and PyTorch into $(VENV): a few minutes, once"
	@$(PIP) -c constraints.txt -e '.[local]' || $(PIP) -e '.[local]'
	@touch $@

$(VENV)/.dev: $(META) | $(BIN)/python
	@echo "installing promptgrad, PyTorch and the development tools into $(VENV): a few minutes, once"
	@$(PIP) -c constraints.txt -e '.[dev]' || $(PIP) -e '.[dev]'
	@touch $(VENV)/.demo $@

.venv-bench/.done: benchmarks/requirements.txt $(META)
	@echo "making .venv-bench, with the peers: a few minutes, once"
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install $(QUIET) --disable-pip-version-check -c constraints.txt -e '.[local,retrieve]' -r benchmarks/requirements.txt
	@touch $@

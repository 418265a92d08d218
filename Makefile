# Everything a user, a developer and the CI run. `make` alone lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

# One thread per worker and one worker more than cores, as the tests of the cluster and of signals mostly wait. In the
# order of tests/conftest.py, the longest files first. Warnings are errors (pyproject.toml). Compiled tests are kept, as each
# worker would compile all of them anew.
WORKERS = $(shell $(PYTHON) -c 'import os; own = getattr(os, "sched_getaffinity", None); \
  print(min((len(own(0)) if own else os.cpu_count()) + 1, 8))')
PYTEST  = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install run report test test-fast test-thorough mutants lint format benchmark wheel clean

help: ## List the targets
	@echo "usage: make <target> [PYTHON=python3.11]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

install: $(READY) ## Create .venv with the pinned packages (the other targets do it when needed)

run: $(READY) ## Train a first model: VaDE on the temporally non-stationary sources of TCL
	$(BIN)/python -m ivae_lab.train model=vade data=tcl

report: $(READY) ## Show every claim and figure that has results in outputs/report/index.html
	$(BIN)/python -m ivae_lab.report

test: lint ## All that the CI runs: style and types, then every test, warnings as errors
	$(PYTEST)

test-fast: $(READY) ## The tests that are not marked slow
	$(PYTEST) -m "not slow"

test-thorough: lint ## Every test with many examples, long kills and large programs: tests/README.md lists what is more
	IVAE_LAB_THOROUGH=1 $(PYTEST)

mutants: $(READY) ## Put one-line faults into a copy, one at a time, and say which the tests do not notice (some hours)
	$(BIN)/python scripts/mutants.py

lint: $(READY) ## Check style, imports and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy

format: $(READY) ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(READY) ## Time training steps, stacked against one by one, and how they grow (half an hour)
	$(BIN)/python scripts/benchmark.py --growth S n K M N --processes 'khemakhem2020 iVAE' \
	  --csv outputs/benchmark.csv --plot outputs/benchmark.png

wheel: $(READY) ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## Remove wheels and caches (.venv and outputs stay)
	rm -rf dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -path ./outputs -prune -o -type d -name __pycache__ -exec rm -rf {} +

# torch goes first and alone, so that nothing else decides which of its builds is fetched. pip would compile on one core.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: $(PYTHON) is missing or older than Python 3.11; name another with make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: $(PYTHON) cannot create virtual environments; install its venv package (Debian: python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --no-compile -e '.[dev]' -c constraints.txt
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # some files are of a later Python
	@touch $@

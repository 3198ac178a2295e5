# Two commands do everything on a machine with Python 3.11 or later and make:
#   make quickstart    install, then run every stage on small real images
#   make test          install the test tools too, then run the tests
# Finished steps are not repeated.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help quickstart install test test-failed test-slow test-plugins test-slurm lint check format \
  docs clean

help:
	@echo "make quickstart   install, then run recipes/quickstart.yaml (minutes)"
	@echo "make test         install the test tools, then run the tests"
	@echo "make test-failed  run the tests that failed once more"
	@echo "make test-slow    run the tests that make test leaves out because they are slow"
	@echo "make test-plugins test sample plugin packages, as wheels in a fresh environment (a minute)"
	@echo "make test-slurm   start a Slurm of two nodes on this machine (as root), run its tests"
	@echo "make lint         check format, lint, types, import rules"
	@echo "make check        the same, and run the tests of the docs"
	@echo "make format       format, and fix what ruff can fix"
	@echo "make docs         regenerate the reference pages"

quickstart: $(VENV)/.installed
	$(BIN)/pae run quickstart

install: $(VENV)/.installed

TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope

test: $(VENV)/.installed-dev
	$(TESTS)

test-failed: $(VENV)/.installed-dev
	$(TESTS) --last-failed --last-failed-no-failures none

test-slow: $(VENV)/.installed-dev
	$(TESTS) -m "slow and not slurm and not gpu and not network and not upstream"

# Wheels of this tree and of the sample plugins, in a virtual environment of their own; a run with
# the plugins of docs/how_to.md.
test-plugins: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/sample_plugins \
	  tests/docs/test_how_to.py::test_one_run_uses_all_of_them

SLURM_TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slurm and not slow" tests/slurm
# Exit code if no Slurm can be started on this machine.
WITHOUT_SLURM ?= 1

# The Slurm is stopped also if it does not start or a test fails. Tests that fail are run once more:
# the daemons of a busy machine may be late.
test-slurm: $(VENV)/.installed-dev
	dir=$$(mktemp -d) && trap "scripts/local-slurm down --dir $$dir" EXIT && trap 'exit 1' INT TERM \
	  && use=$$(scripts/local-slurm up --dir $$dir) \
	  || { echo "no Slurm can be started here; its tests are left out"; exit $(WITHOUT_SLURM); } \
	  && eval "$$use" && { $(SLURM_TESTS) || $(SLURM_TESTS) --last-failed; }

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/python -m pytest -q tests/docs

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; run make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' \
	  || { echo "Python's venv is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

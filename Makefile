# make demo   sets everything up and shows the main job
# make test   sets everything up and runs the tests
# make check  lints, type-checks, builds and checks the wheel
# make simulate SEEDS=20000   runs many seeds of the simulation
# make explore                visits every interleaving of three workers
# make floor                  runs the tests on the lowest stated versions

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1

SEEDS ?= 2000
JOBS ?= 2

.PHONY: simulate explore floor demo test check lint types imports dist format clean

demo: $(STAMP)
	$(BIN)/apivideo-auth demo

test: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: lint types imports dist

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(STAMP)
	$(BIN)/lint-imports

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/python .ci/check_wheel.py dist

simulate: $(STAMP)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs $(JOBS)

explore: $(STAMP)
	$(BIN)/python -m tests.exhaustive

floor: $(STAMP)
	$(BIN)/python -m pip install --quiet "uv>=0.5"
	test -x .venv-floor/bin/python || $(PYTHON) -m venv .venv-floor
	VIRTUAL_ENV=.venv-floor $(BIN)/uv pip install --quiet --resolution lowest-direct --editable ".[all]" --group test
	.venv-floor/bin/python -m pytest $(ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamp is older than pyproject.toml when the environment is missing or out of date.
$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group dev
	touch $(STAMP)

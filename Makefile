# make demo     sets up what it needs, and shows the main job
# make test     sets up what it needs, and runs the tests; ARGS="-k word" runs some of them
# make check    lints, type-checks, builds and checks the wheel, and builds the pages of the site
# make docs     builds the site of the documentation into site/, with its diagrams
# make verify   everything that takes longer: the targets slow, simulate, explore, floor, pythons and wheels
# make slow     runs the slow tests, such as fleets of processes
# make simulate runs SEEDS seeds of the simulation
# make explore  visits every interleaving of three workers
# make floor    runs the tests on the lowest versions that pyproject.toml allows
# make pythons  runs the tests on every Python of this machine
# make wheels   installs the wheel alone on every Python of this machine, and uses it
# make bench    measures the package beside others of its kind; ARGS="--quick" only shows that everything works
# make mutants  changes the package in thousands of small ways, and counts the changes that no test notices

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Otherwise each process of the tests compiles the package and its tests again.
unexport PYTHONDONTWRITEBYTECODE

CORES := $(shell getconf _NPROCESSORS_ONLN)
# Processes that run tests; ARGS="-n0" runs them in one, as a debugger needs it. One more than there are cores, because
# some tests wait for the processes that they start.
JOBS ?= $(shell expr $(CORES) + 1)
PYTEST := -m pytest -n $(JOBS) --dist worksteal
SEEDS ?= 20000
# Groups of mutants to try; all of them by default. pyproject.toml names them.
GROUPS ?=

.PHONY: demo test check lint types imports dist pages docs verify slow simulate explore floor pythons wheels bench mutants format clean

demo: $(VENV)/.demo
	$(BIN)/apivideo-auth demo

# Some of the tests do not reach the limit of the coverage.
ifdef ARGS
test: $(VENV)/.test
	$(BIN)/python $(PYTEST) $(ARGS)
else
test: $(VENV)/.test
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
endif

check: lint types imports dist pages

lint: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest --quiet --slow tests/unit/test_typing.py

imports: $(VENV)/.check
	$(BIN)/lint-imports

dist: $(VENV)/.check
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/python .ci/check_wheel.py dist

# Strict: a broken link, a missing anchor or an unknown name in the reference is an error.
# Without mermaid, which is fetched for each environment once, so that the check needs no npm.
pages: $(VENV)/.docs
	MERMAID=none NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir $(VENV)/pages

docs: $(VENV)/.docs $(VENV)/mermaid.min.js
	MERMAID=$(VENV)/mermaid.min.js NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

verify: slow simulate explore floor pythons wheels

# One after another: a fleet has many processes itself.
slow: $(VENV)/.test
	$(BIN)/python -m pytest --slow -m slow $(ARGS)

simulate: $(VENV)/.test
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs $(CORES)

explore: $(VENV)/.test
	$(BIN)/python -m tests.exhaustive

floor: $(VENV)/.test
	$(BIN)/python -m pip install --quiet "uv>=0.5"
	test -x .venv-floor/bin/python || $(PYTHON) -m venv .venv-floor
	VIRTUAL_ENV=.venv-floor $(BIN)/uv pip install --quiet --resolution lowest-direct --editable ".[all]" --group test
	.venv-floor/bin/python $(PYTEST) $(ARGS)

pythons: $(VENV)/.test
	.ci/pythons $(BIN) -n $(JOBS) --dist worksteal $(ARGS)

wheels: dist
	@for version in 3.11 3.12 3.13 3.14; do \
	  for python in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
	    if $$python -c '' 2>/dev/null; then \
	      echo "Python $$version: $$python"; $$python .ci/check_wheel.py dist || exit 1; break; \
	    fi; \
	  done; \
	done

# In an environment of its own, because the other packages have many dependencies.
bench:
	$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/.bench
	.venv-bench/bin/python -m benchmarks $(ARGS)

mutants: $(VENV)/.mutants
	$(BIN)/python .ci/mutants.py $(GROUPS)

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-* .mutants build dist site .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Each file says that something is installed, and is out of date when pyproject.toml is newer.
$(VENV)/.demo: PACKAGES := --editable ".[cli]"
$(VENV)/.test: PACKAGES := --editable ".[all]" --group test --group vendor
$(VENV)/.check: PACKAGES := --editable ".[all]" --group dev
$(VENV)/.docs: PACKAGES := --editable . --group docs
$(VENV)/.bench: PACKAGES := --editable ".[cli,file,redis]" --group bench
$(VENV)/.mutants: PACKAGES := --editable ".[all]" --group test --group mutants
$(VENV)/.demo $(VENV)/.test $(VENV)/.check $(VENV)/.docs $(VENV)/.bench $(VENV)/.mutants: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet $(PACKAGES)
	touch $@

# The diagrams of the site are drawn by mermaid, which is too large to commit.
$(VENV)/mermaid.min.js: scripts/get_mermaid.py | $(VENV)/.docs
	$(BIN)/python scripts/get_mermaid.py $@

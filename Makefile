# make demo | test | e2e | bench | deployment | chaos: each installs the pinned set into .venv first, when that has changed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
# Large tensors are kept on the heap: returning them after each step is slow (docs/results.md, speed).
export MALLOC_MMAP_THRESHOLD_ = 4294967296
export MALLOC_TRIM_THRESHOLD_ = 8589934592
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1

.PHONY: demo check test e2e bench deployment chaos clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/fedcondense-simulate simulations/quick.toml --out runs/demo

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest -q -m "not slow and not e2e"

test: check

# what needs processes, or more than five seconds
e2e: $(STAMP)
	$(BIN)/pytest -q -m "e2e or slow" --durations=5

bench: $(STAMP)
	$(BIN)/python benchmarks/iteration.py

# what a deployment costs besides condensing
deployment: $(STAMP)
	PYTHONPATH=tests/kits $(BIN)/python tests/measures/deployment.py --sites $(or $(SITES),3) --group $(or $(GROUP),0)

# kills every process of a deployment in every phase; goes on where it was interrupted;
# CELLS="superlink/condensing ..." for some, CELLS="link busy" for two that are never played unnamed
chaos: $(STAMP)
	PYTHONPATH=tests/kits $(BIN)/python tests/chaos/kill_matrix.py $(CELLS)

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

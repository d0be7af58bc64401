# The commands of this repository. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check format proto bench docs clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 chooses the Python of .venv; nothing else needs to be installed."

setup: ## Make .venv with everything that is needed (quick when it is up to date)
	@$(PYTHON) scripts/setup_env.py

demo: setup ## Make data, train, evaluate, export and predict (about a minute)
	@$(BIN)/tzrec demo

# One process a core, one thread each: a file of tests stays in one process, for its fixtures.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

test: setup ## Run the tests
	$(PYTEST)

test-slow: setup ## Run the tests that take minutes too
	$(PYTEST) -m "not gpu"

check: setup ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: setup ## Generate tzrec/protos/*_pb2.py from the .proto files
	$(BIN)/python scripts/gen_proto.py

bench: setup ## Measure everything quickly, into benchmarks/RESULTS.md; WHAT=peers,serving: the long forms
	$(BIN)/python benchmarks/make_bench.py "$(WHAT)"

docs: setup ## Build the documentation into build/site
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt "mkdocs>=1.6"
	$(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

clean: ## Remove .venv and everything that was generated
	rm -rf $(VENV) build dist experiments .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	rm -rf *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One command each: `make demo` shows the whole thing, `make test` proves it. Both set up what they need.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup demo test lint bench docs clean

setup: .venv/.dev

# torch first and alone: on Linux its exact version may be had as the small CPU build, which a later resolve would not choose.
.venv/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"tunesmith needs Python 3.11 or newer, and {sys.executable} is {v.major}.{v.minor}. Name another: make PYTHON=python3.12")'
	@echo "● set-up    making .venv (about two minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) -c constraints.txt -e .
	@touch $@

.venv/.dev: .venv/.core
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/.core
	@$(BIN)/tunesmith run examples/boutique
	@echo "             (first, once in this terminal: source .venv/bin/activate)"

# A file stays with one worker, for its fixtures; more workers than two would fight for the cores that the tests train on.
# The store's tests start a PostgreSQL and kill processes, and run alone.
test: lint
	@$(BIN)/pytest -n 2 --dist loadfile --ignore tests/store
	@$(BIN)/pytest tests/store

lint: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/.dev
	@$(BIN)/python -m benchmarks

docs: .venv/.dev
	@$(BIN)/pdoc --output-directory site tunesmith
	@echo "site/index.html"

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

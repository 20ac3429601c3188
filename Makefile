# make quickstart   install, train on digits, show pictures
# make test         install, lint, run all tests
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test lint

quickstart: .venv/installed
	$(BIN)/smallbatch quickstart

test: .venv/installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	touch $@

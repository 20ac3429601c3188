# make quickstart   install, train on digits, show pictures
# make test         install, lint, run all tests
# make test-faults  runs killed at 20 moments, full disks, processes that die: many minutes
# make test-slurm   a sweep on a real cluster of this machine; needs Debian's slurmctld, slurmd, slurm-client
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-faults test-slurm lint

quickstart: .venv/installed
	$(BIN)/smallbatch quickstart

test: .venv/installed lint
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-faults: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "faults or not faults" tests/faults

test-slurm: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm tests/slurm

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	touch $@

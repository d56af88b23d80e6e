# Every target makes the one shared virtual environment itself, when it is missing or the pins have changed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check

.PHONY: quickstart test test-all faults lint bench fuzz long-run clean

quickstart: $(READY)
	@$(BIN)/python -m launch.train --config=experiments/quickstart/config.py --workdir=runs/quickstart

test: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist=loadfile -m "not slow"

test-all: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist=loadfile

N ?= 20
faults: $(READY)
	@$(BIN)/python -m tests.faults --kills=$(N) --out=faults.json $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --warnings

bench: $(READY)
	@$(BIN)/python -m experiments.training_time.reading
	@$(BIN)/python -m experiments.training_time.drawing
	@$(BIN)/python -m experiments.training_time.bench $(ARGS)

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz $(ARGS)

long-run: $(READY)
	@$(BIN)/python -m tests.stability.long_run $(ARGS)

clean:
	rm -rf $(VENV) runs

$(READY): pyproject.toml constraints.txt
	@echo "making $(VENV) (once, about a minute)"
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "error: $(PYTHON) is not installed: give another with make PYTHON=python3.12 (3.11 to 3.13)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip -c constraints.txt
	@$(PIP) install --no-compile -c constraints.txt -e '.[test,lint]'
	@touch $@

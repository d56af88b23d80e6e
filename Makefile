# Every target makes the one shared virtual environment itself, when it is missing, or the pins or its Python have changed.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# A Python that makes environments runs (version managers leave commands that do not) and has pip (Debian packs it apart).
version = $(shell $(1) -c 'import $(2), platform; print(platform.python_version())' 2>/dev/null)
ifndef PYTHON
newest_first := python3.13 python3.12 python3.11
PYTHON := $(firstword $(foreach python,$(newest_first),$(if $(call version,$(python),ensurepip),$(python))) $(wildcard $(BIN)/python))
endif
WANTED := $(if $(PYTHON),$(call version,$(PYTHON),ensurepip))
PRESENT := $(call version,$(BIN)/python,pip)
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check

.PHONY: quickstart test test-all test-part installs faults lint bench fuzz long-run clean

quickstart: $(READY)
	@$(BIN)/python -m launch.train --config=experiments/quickstart/config.py --workdir=runs/quickstart

test: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist=loadfile -m "not slow and not network"

test-all: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist=loadfile -m "not network" --durations=30 --durations-min=15

# What another Python and other pins are most likely to break: reading, writing, computing, the command line.
PART := tests/rooms_test.py tests/singan/storage tests/singan/model/networks_test.py tests/singan/training \
  tests/launch/old_workdir_test.py tests/launch/images tests/launch/cli_test.py tests/docs/plain_orbax_test.py
test-part: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist=loadfile -m "not slow and not network" $(PART)

# Resolves every documented install line, for each of 3.13, 3.12 and 3.11 that is here: asks the package index.
installs: $(READY)
	@$(BIN)/python -m pytest -m network -rs

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

ifneq ($(WANTED),$(PRESENT))
.PHONY: $(READY)
endif

$(READY): pyproject.toml constraints.txt
	@case "$(WANTED)" in 3.1[123].*) ;; *) echo "error: $(or $(PYTHON),$(newest_first)): no Python 3.11 to 3.13 that runs\
	 and has pip (Debian's is in python3-venv); name another with make PYTHON=/path/to/python3.13" >&2; exit 2;; esac
	@echo "making $(VENV) with Python $(WANTED) (once, about a minute)"
	@test "$(WANTED)" = "$(PRESENT)" || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --upgrade pip -c constraints.txt
	@$(PIP) install --no-compile -c constraints.txt -e '.[test,lint]'
	@touch $@

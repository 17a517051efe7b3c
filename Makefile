# make run: set up and run the default comparison; make test: set up and run the tests. Both work from an empty clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# TORCH=cpu (default) takes the CPU build of torch (on Linux PyPI's own is the multi-gigabyte CUDA build); TORCH=cuda takes PyPI's
TORCH ?= cpu
TORCH_VERSION := 2.13.0
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: setup run test check clean

setup: $(VENV)/.installed

# installed again only when the dependencies change
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(TORCH)-$(shell uname -s),cpu-Linux)
	$(PIP) torch==$(TORCH_VERSION)+cpu 2>/dev/null || $(PIP) torch==$(TORCH_VERSION)+cpu --extra-index-url https://download.pytorch.org/whl/cpu
else
	$(PIP) torch==$(TORCH_VERSION)
endif
	$(PIP) -e '.[dev]'
	touch $@

run: setup
	$(BIN)/python -m harness.run

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .cache build *.egg-info

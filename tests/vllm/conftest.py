"""Small models with their tokenizer on disk, in-process engines on them, and a look at which processes are alive."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from harness.rollout import RolloutRequest
from harness.rollout.hf import HFEngine
from harness.scoring import Completion, ScoreRequest
from harness.scoring.hf import HFScorer
from harness.types import Rollout
from tests.conftest import random_model

CONTEXT = 2048
SOME_PROMPT = tuple(range(5, 25))
LONG_PROMPT = tuple(5 + (i * 7) % 50 for i in range(400))  # several blocks of the prefix cache


def stored(folder: Path, model: PreTrainedModel) -> str:
    """Writes a model with the tiny tokenizer; its folder's name."""
    from harness.tiny.language import build_tokenizer

    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


@contextlib.contextmanager
def in_process(source: str, **changes: Any) -> Iterator[Any]:
    """An InProcessBackend on a stored model."""
    from harness.rollout.vllm import EngineOptions, InProcessBackend

    options = {
        "source": source,
        "revision": None,
        "dtype": "float32",
        "kv_cache_bytes": 2**26,
        "max_sequences": 64,
        "max_logprobs": 128,
        "eager": True,
        "on_cpu": True,
        "max_length": CONTEXT,
    }
    with InProcessBackend(EngineOptions(**{**options, **changes}), threads=1) as backend:
        yield backend


def requests(
    prompt: tuple[int, ...] = SOME_PROMPT, count: int = 8, prefix: tuple[int, ...] = ()
) -> list[RolloutRequest]:
    """The same prompt with a seed for each sample."""
    return [RolloutRequest("p", prompt, seed, seed, prefix) for seed in range(count)]


def largest_difference(rollouts: list[Rollout], model: PreTrainedModel, vocab_size: int = 64) -> float:
    """Between the log-probs of the rollouts' own tokens and those of a model, nats."""
    scored = HFScorer(model, vocab_size).score(
        [Completion(r.prompt_ids, r.completion_ids) for r in rollouts], ScoreRequest()
    )
    differences = [
        (scored.signal.logprobs[row, r.prefix_len : len(r.completion_ids)] - torch.tensor(r.logprobs[r.prefix_len :]))
        for row, r in enumerate(rollouts)
    ]
    return torch.cat(differences).abs().max().item()


def hf_engine(model: PreTrainedModel, vocab_size: int = 64) -> HFEngine:
    """The default engine on a model."""
    return HFEngine(model, vocab_size)


def step_of_training(model: PreTrainedModel, seed: int) -> None:
    """One large update, so that the policy is visibly another."""
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    ids = torch.randint(5, 60, (4, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A stored model with a tied head."""
    return stored(tmp_path_factory.mktemp("tied"), random_model(1))


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A stored model with a head of its own."""
    return stored(tmp_path_factory.mktemp("untied"), random_model(2, tied=False))


def processes_of_group(group: int) -> list[int]:
    """Live processes (no zombies) of a process group."""
    alive = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                state, _, group_of = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
                if int(group_of) == group and state != "Z":
                    alive.append(int(entry.name))
    return alive


def processes_with(text: str) -> list[int]:
    """Live processes, other than this one, whose environment holds a text: children inherit it, whatever they call
    themselves.
    """
    alive = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if state != "Z" and text.encode() in (entry / "environ").read_bytes():
                    alive.append(int(entry.name))
    return alive

"""Training with an engine that holds a copy of the weights: what vLLM is to the trainer, with a second transformers
model in its place.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baselines.opd import OPD
from harness.config.execution import VLLMOptions
from harness.engines.opening import Opened
from harness.errors import UserError
from harness.models.loading import load_tokenizer, stop_ids_of
from harness.rollout.hf import HFEngine
from harness.rollout.weights import CheckedWeights
from harness.rollout.worker import vocabulary_digest
from harness.scoring.hf import HFScorer
from harness.training import train as training
from harness.training.self_check import MISMATCH_LIMIT
from tests.conftest import execution
from tests.training.test_step import STEPS, config_for, run

OPTIONS = VLLMOptions("in_process", "nccl", 0.1, 8, 64, True, False, None)


class CopiedWeights:
    """Copies the trainer's weights, with an error if asked."""

    def __init__(self, engine: HFEngine, model: torch.nn.Module, noise: float) -> None:
        self.engine, self.model, self.noise = engine, model, noise
        self.pushed: list[int] = []

    def push(self, policy_version: int) -> None:
        self.pushed.append(policy_version)
        with torch.no_grad():
            for own, theirs in zip(self.engine.model.parameters(), self.model.parameters(), strict=True):
                own.copy_(theirs + self.noise * theirs.abs().mean())
        self.engine.policy_version = policy_version


@pytest.fixture
def other_engine(monkeypatch):
    """Puts the copy where the configuration asks for vLLM; `served` is what it says of itself, `weights` the last
    CopiedWeights.
    """
    state: dict[str, Any] = {"noise": 0.0, "served": {}}
    original = training.open_engine

    @contextlib.contextmanager
    def opened(execution, source, vocab_size, folder, *, longest, model, role):
        if execution.name == "hf":
            with original(execution, source, vocab_size, folder, longest=longest, role=role, model=model) as own:
                yield own
            return
        engine = HFEngine(copy.deepcopy(model), vocab_size)
        state["weights"] = CopiedWeights(engine, model, state["noise"])
        tokenizer = load_tokenizer(source.name)
        served = {
            "tokenizer": vocabulary_digest(tokenizer),
            "vocab_size": 64,
            "dtype": source.dtype,
            "stop_ids": list(stop_ids_of(model, tokenizer)),
        } | state["served"]

        class Backend:
            def tell(self, method: str, **_: Any) -> Any:
                return served

        yield Opened(engine, HFScorer(engine.model, vocab_size), state["weights"], Backend())  # type: ignore[arg-type]

    monkeypatch.setattr(training, "open_engine", opened)
    return state


def with_vllm(random_pair: Path, tmp_path: Path, **changes: Any) -> Any:
    config = config_for(random_pair, tmp_path, OPD(), **changes)
    return dataclasses.replace(config, engine=execution(name="vllm", teacher="hf", micro_batch_prompts=8, vllm=OPTIONS))


def test_a_faithful_copy_trains_the_same(random_pair, tmp_path, other_engine, capsys) -> None:
    """Its samples are the same, its log-probs are not used: weights differ by the rounding of scored against sampled
    log-probs.
    """
    expected, rows = run(config_for(random_pair, tmp_path, OPD(), dtype="float32"), tmp_path / "own")
    weights, other_rows = run(with_vllm(random_pair, tmp_path), tmp_path / "other")
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-4)
    assert [row["tokens/student"] for row in other_rows] == [row["tokens/student"] for row in rows]
    assert all(0 <= row["mismatch/mean"] <= row["mismatch/max"] < 1e-4 for row in other_rows)
    assert all(row["mismatch/max"] == 0 for row in rows)  # taken over, not scored again
    assert other_engine["weights"].pushed == list(range(STEPS))
    assert "self-check at version 0" in capsys.readouterr().err


def test_all_ranks_push_before_the_first_scores(random_pair, tmp_path, other_engine) -> None:
    """Servers may be everybody's: whoever does not score pushes too, before the start and after the step."""
    config = with_vllm(random_pair, tmp_path)
    task = {"dev_task": "arithmetic_dev", "dev_every": STEPS, "max_new_tokens": {"arithmetic_dev": 4}}
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **task))
    run(config, tmp_path / "run")
    once = [0, 0, *range(STEPS), STEPS, STEPS]  # of every rank, and of the one that scores
    assert other_engine["weights"].pushed == once


def test_an_unfaithful_engine_is_seen(random_pair, tmp_path, other_engine, monkeypatch) -> None:
    other_engine["noise"] = 0.05
    with pytest.raises(RuntimeError, match="rollout engine and trainer disagree by"):
        run(with_vllm(random_pair, tmp_path), tmp_path / "checked")
    monkeypatch.setitem(MISMATCH_LIMIT, "float32", 100.0)
    _, rows = run(with_vllm(random_pair, tmp_path, importance_cap=1.5), tmp_path / "unchecked")
    for row in rows:
        assert row["mismatch/max"] > 0.01
        assert 0 < row["ratio/capped_frac"] < 1 and 0 < row["ratio/mean"] < 1.5


def test_rho_is_one_where_the_engine_is_the_trainer(random_pair, tmp_path) -> None:
    plain, rows = run(config_for(random_pair, tmp_path, OPD()), tmp_path / "plain")
    capped, capped_rows = run(config_for(random_pair, tmp_path, OPD(), importance_cap=1.5), tmp_path / "capped")
    assert all(torch.equal(value, capped[name]) for name, value in plain.items())
    assert all(row["ratio/mean"] == 1 and row["ratio/capped_frac"] == 0 for row in capped_rows)
    assert all("ratio/mean" not in row for row in rows)


@pytest.mark.parametrize(
    ("key", "value"), [("tokenizer", "another"), ("vocab_size", 80), ("dtype", "bfloat16"), ("stop_ids", [1, 2])]
)
def test_an_engine_of_another_model_is_refused(random_pair, tmp_path, other_engine, key, value) -> None:
    other_engine["served"] = {key: value}
    with pytest.raises(UserError, match=f"its {key} is"):
        run(with_vllm(random_pair, tmp_path), tmp_path / "run")


class SampledFromAnotherPolicy(CopiedWeights):
    """Forgets to say which version it brought."""

    def push(self, policy_version: int) -> None:
        super().push(policy_version)
        self.engine.policy_version = policy_version - 1


def test_rollouts_of_another_version_are_refused(random_pair, tmp_path, other_engine, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "CopiedWeights", SampledFromAnotherPolicy)
    with pytest.raises(RuntimeError, match="sampled from policy version -1, the trainer is at 0"):
        run(with_vllm(random_pair, tmp_path), tmp_path / "run")


def test_the_first_versions_are_checked_once_each() -> None:
    """Development scores before the first step push its version, and the step pushes it again."""
    checked: list[int] = []
    weights = CheckedWeights(SimpleNamespace(push=lambda version: None), checked.append)
    for version in (0, 0, 1, 2):
        weights.push(version)
    assert checked == [0, 1]

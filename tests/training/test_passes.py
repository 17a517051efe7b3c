"""Passes over a model that nobody reads are not made, and change nothing where they are left out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.gkd import GKD
from baselines.opd import OPD
from baselines.seqkd import SeqKD
from harness.results.record import Counters
from harness.scoring.hf import HFScorer
from harness.training.job import _counters
from harness.types import SignalRequest, TokenCredit
from tests.training.test_step import STEPS, assert_same_weights, config_for, run


class ScoredSeqKD(SeqKD):
    """SeqKD that has both models score its text, for nobody."""

    def request(self, progress: float) -> SignalRequest:
        return SignalRequest()


class OwnGKD(GKD):
    """GKD on the student's own text alone: the prompts here have no references."""

    def __init__(self) -> None:
        super().__init__(student_share=1.0)


def scorings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths of the models that score from now on, call by call."""
    found: list[int] = []
    original = HFScorer.score

    def spy(self: HFScorer, *arguments: Any) -> Any:
        found.append(self.model.config.hidden_size)
        return original(self, *arguments)

    monkeypatch.setattr(HFScorer, "score", spy)
    return found


def test_text_of_the_teacher_is_not_scored(random_pair: Path, tmp_path: Path, monkeypatch) -> None:
    """Student 64 wide, teacher 96: both score in every step of one run, none in the other; the weights are the same.

    The first call of a run is the check of the engine, by the student.
    """
    calls = scorings(monkeypatch)
    before, _ = run(config_for(random_pair, tmp_path, ScoredSeqKD()), tmp_path / "scored")
    assert sorted(calls) == [64] * (STEPS + 1) + [96] * STEPS
    calls.clear()
    config = config_for(random_pair, tmp_path, SeqKD())
    after, rows = run(config, tmp_path / "unscored")
    assert calls == [64]
    assert_same_weights(before, after)
    assert {row["tokens/scored"] for row in rows} == {row["tokens/student_scored"] for row in rows} == {0.0}
    absent = {"kl/reverse_k1", "mismatch/mean", "entropy/student", "stop/teacher_at_end", "stop/student_at_end"}
    assert not absent & rows[0].keys()
    counters = _counters(config.setting, tmp_path / "unscored", Counters())
    assert counters.scored_tokens == 0 < counters.teacher_tokens


def test_a_wrong_declaration_fails(random_pair: Path, tmp_path: Path) -> None:
    """A method that reads the teacher after all gets NaN; one whose direct term needs it is told so."""

    class Blind(OPD):
        def request(self, progress: float) -> SignalRequest:
            return SignalRequest(teacher=False)

    class BlindDirect(Blind):
        def credit(self, batch, teacher, student, progress) -> TokenCredit:
            zeros = torch.zeros_like(student.logprobs)
            return TokenCredit(zeros, batch.on_policy_mask.float(), zeros)

    for method, error in ((Blind(), FloatingPointError), (BlindDirect(), RuntimeError)):
        with pytest.raises(error, match=r"non-finite|leaves the teacher out"):
            run(config_for(random_pair, tmp_path, method), tmp_path / type(method).__name__)


def test_own_samples_keep_their_metrics(random_pair: Path, tmp_path: Path) -> None:
    """GKD reads no log-prob of the student; those of its own samples come with the sampling all the same."""
    _, rows = run(config_for(random_pair, tmp_path, OwnGKD()), tmp_path / "run")
    assert rows[0]["mismatch/max"] == 0.0
    assert rows[0]["tokens/student_scored"] == 0.0
    assert rows[0]["tokens/scored"] == rows[0]["tokens/student"]
    assert math.isfinite(rows[0]["kl/reverse_k1"])
    assert {"stop/student_elsewhere", "stop/teacher_elsewhere"} <= rows[0].keys()


def test_text_of_the_data_set_is_nobodys(random_pair: Path, tmp_path: Path) -> None:
    """Its tokens are counted apart from the teacher's, whose writing costs operations."""
    import json

    from baselines.sft import SFT

    config = config_for(random_pair, tmp_path, SFT())
    prompts = Path(config.setting.prompts)
    rows = [{**json.loads(line), "reference": "9 ; add 4 : 3 ."} for line in prompts.read_text().splitlines()]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, metrics = run(config, tmp_path / "run")
    assert metrics[0]["tokens/teacher"] == metrics[0]["tokens/scored"] == 0.0 < metrics[0]["tokens/reference"]

"""Settings that take a method's mechanism away are refused, or said, before the first step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from baselines.aopd import AOPD
from baselines.entropy_opd import EntropyOPD
from baselines.eopd import EOPD
from baselines.gkd import GKD
from baselines.mask_outlier import MaskOutlier
from baselines.opd import OPD
from baselines.reopold import REOPOLD
from baselines.reopold_2stage import REOPOLDTwoStage
from baselines.seqkd import SeqKD
from baselines.sft import SFT
from baselines.tropd import TrOPD
from harness.config.methods import find_method, method_names
from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.training.guidance import check_responses, prefix_metrics
from harness.training.mechanisms import check_guidance, check_references, doubts, writers_of
from harness.training.prompts import Prompt
from harness.types import Method
from tests.training.test_step import config_for


class NoPrefix(TrOPD):
    """Has teacher text made and never uses it."""

    def prefix_lengths(self, progress: float, response_lengths: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(response_lengths)


class LatePrefix(TrOPD):
    """One token of the teacher's, in the second half."""

    def prefix_lengths(self, progress: float, response_lengths: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        return torch.full_like(response_lengths, int(progress >= 0.5))


@pytest.fixture
def config(random_pair: Path, tmp_path: Path) -> RunConfig:
    """Three steps of at most 16 tokens."""
    return config_for(random_pair, tmp_path, OPD())


def of(config: RunConfig, method: Method, **changes: Any) -> RunConfig:
    return dataclasses.replace(config, method=method, setting=dataclasses.replace(config.setting, **changes))


@pytest.mark.parametrize("method", [OPD(), SeqKD(), TrOPD(prefix_schedule="none"), TrOPD(), LatePrefix()])
def test_methods_that_get_what_they_ask_for(config: RunConfig, method: Method) -> None:
    check_guidance(of(config, method, min_continuation=15))


@pytest.mark.parametrize(
    ("method", "continuation"),
    [(TrOPD(), 16), (NoPrefix(), 1), (TrOPD(prefix_schedule="uniform"), 16)],
)
def test_a_method_that_would_never_get_teacher_text(config: RunConfig, method: Method, continuation: int) -> None:
    with pytest.raises(UserError, match="would get no teacher text in any step"):
        check_guidance(of(config, method, min_continuation=continuation))


def test_more_continuation_than_text_is_a_contradiction_for_every_method(config: RunConfig) -> None:
    with pytest.raises(UserError, match=r"min_continuation=17 is more than setting\.max_new_tokens=16"):
        of(config, OPD(), min_continuation=17)


def test_texts_that_turn_out_short(capsys: pytest.CaptureFixture[str]) -> None:
    """Texts of 3 and 5 tokens: 4 for the student leave a prefix of one, 5 leave none."""
    texts = [(1, 2, 3), (1, 2, 3, 4, 5)]
    check_responses(TrOPD(), texts, 3, 4)
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"no step would get a prefix .* at most 5 tokens, .*min_continuation=5"):
        check_responses(TrOPD(), texts, 3, 5)
    with pytest.raises(UserError, match="at most 0 tokens"):
        check_responses(TrOPD(), [(), ()], 3, 1)
    check_responses(LatePrefix(), texts, 4, 1)  # progress 0, 1/4, 1/2
    assert "warning: no step before step 3 gets a prefix" in capsys.readouterr().err


def test_metrics_tell_what_was_asked_and_given() -> None:
    """Asked at progress 0: all of 2 and 6 tokens, 4 a prompt. With 3 for the student: none and 3, 1.5 a prompt."""
    texts, uniforms = [(1, 2), (1, 2, 3, 4, 5, 6)], torch.zeros(2)
    found = prefix_metrics(TrOPD(), texts, 0.0, uniforms, [(), (1, 2, 3)])
    assert found == {"guidance/asked": 4.0, "guidance/given": 1.5, "guidance/in_vain_frac": 0.5}
    # at the end of the schedule nothing is asked: nothing is in vain
    assert prefix_metrics(TrOPD(), texts, 1.0, uniforms, [(), ()])["guidance/in_vain_frac"] == 0.0


def test_who_writes_is_known_beforehand(config: RunConfig) -> None:
    assert writers_of(of(config, OPD())) == {"student"}
    assert writers_of(of(config, SFT())) == {"reference"}
    assert writers_of(of(config, SeqKD())) == {"teacher"}
    assert writers_of(of(config, GKD(), steps=20)) == {"student", "reference"}
    assert writers_of(of(config, GKD(student_share=1.0))) == {"student"}


def test_references_are_looked_for_where_they_are_trained_on(config: RunConfig) -> None:
    tokenizer = AutoTokenizer.from_pretrained(config.setting.student)
    prompts = [Prompt("a", (5,), "2 .", tokenizer), Prompt("b", (6,))]
    for method in (OPD(), GKD(student_share=1.0)):
        check_references(of(config, method), tokenizer, prompts)
    check_references(of(config, SFT()), tokenizer, prompts[:1])
    with pytest.raises(UserError, match=r"responses, and prompt 'b' of .* has none"):
        check_references(of(config, SFT()), tokenizer, prompts)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="the student's tokenizer has no end token"):
        check_references(of(config, SFT()), tokenizer, prompts[:1])
    check_references(of(config, OPD()), tokenizer, prompts)


def said_of(run: RunConfig) -> list[str]:
    """With the 64 tokens of the tiny pair."""
    return list(doubts(run, 64))


def test_doubts(config: RunConfig) -> None:
    assert said_of(of(config, OPD(), warmup_steps=2)) == []
    (said,) = said_of(of(config, OPD(), warmup_steps=4, learning_rate=2e-3))
    assert "warmup_steps=4 is not less than setting.steps=3" in said and "gets to 0.001 of" in said  # 2e-3 · 2/4
    (said,) = said_of(of(config, OPD(), importance_cap=2.0))
    assert "importance_cap does nothing" in said
    assert said_of(of(config, OPD(), importance_cap=2.0, dtype="bfloat16")) == []  # the scoring pass is another one
    (said,) = said_of(of(config, OPD(), student=config.setting.teacher))
    assert "the reward is 0 on every token" in said


@pytest.mark.parametrize("name", method_names())
def test_methods_as_they_are_have_all_their_parts(config: RunConfig, name: str) -> None:
    assert said_of(of(config, find_method(name)(), steps=40, warmup_steps=1)) == []


@pytest.mark.parametrize(
    ("method", "is_idle"),
    [
        (EOPD(alpha=0.0), True),
        (EOPD(entropy_threshold=4.17), True),  # log 64 = 4.159: no entropy is larger
        (EOPD(entropy_threshold=4.1), False),
        (REOPOLD(floor=-50.0), True),
        (REOPOLD(floor=-5.0), False),
        (MaskOutlier(threshold=-50.0), True),
        (EntropyOPD(share=1.0), True),
        (EntropyOPD(share=0.9), False),
        (AOPD(threshold=-1.0), True),
        (TrOPD(beta=0.0), False),  # its outliers are left
        (REOPOLDTwoStage(floor=-50.0, t_switch=1.0), True),
    ],
)
def test_knobs_that_leave_the_plain_reward(config: RunConfig, method: Method, is_idle: bool) -> None:
    said = [text for text in said_of(of(config, method)) if "its knobs leave nothing of its own" in text]
    assert bool(said) == is_idle


def test_stages_that_no_step_gets_to(config: RunConfig) -> None:
    """The second one begins in the middle: a single step, at 0, is not there; of two, at 0 and 1/2, the last is."""
    (said,) = said_of(of(config, REOPOLDTwoStage(), steps=1, warmup_steps=0))
    assert "has a stage that none of setting.steps=1 gets to" in said
    assert said_of(of(config, REOPOLDTwoStage(), steps=2, warmup_steps=1)) == []


def test_writers_that_no_step_draws(config: RunConfig) -> None:
    """Three draws, each of which is the data set's with probability 2 %."""
    (said,) = said_of(of(config, GKD(student_share=0.98), warmup_steps=1))
    assert "has completions by the reference, and no step of this run draws one" in said
    assert said_of(of(config, GKD(student_share=1.0), warmup_steps=1)) == []

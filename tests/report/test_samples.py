"""samples.jsonl: what is recorded, when, and that a resumed run has each step once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from harness.errors import UserError
from harness.report.tokens import build_steps, busiest_step
from harness.results.samples import credit_sample, is_sampled, read_samples, sample_row, token_texts
from harness.tiny.language import build_tokenizer
from harness.training.checks import check_leftovers
from harness.training.recorder import cut_rows
from harness.types import Rollout, TokenCredit, TokenSignal
from tests.report.folders import sample_rows


def test_a_handful_of_steps() -> None:
    assert [step for step in range(1, 91) if is_sampled(step, 90)] == [1, 12, 24, 36, 48, 60, 72, 84, 90]
    assert [step for step in range(1, 4) if is_sampled(step, 3)] == [1, 2, 3]
    assert is_sampled(1, 1)


def test_row_holds_the_first_completion_without_padding() -> None:
    rollouts = [Rollout((5,), (6, 7), 1, (-1.0, -2.0), 0, "stop", "p", 0)] * 2
    teacher = TokenSignal(torch.tensor([[-0.5, -4.0, 9.0]] * 2))
    student = TokenSignal(torch.tensor([[-1.0, -2.0, 9.0]] * 2))
    weights = [torch.tensor([[a, b, 9.0]] * 2) for a, b in ((0.0, -2.0), (0.0, 1.0), (0.001, 0.0))]
    sample = credit_sample(rollouts[0], teacher, student, TokenCredit(*weights))
    row = sample_row(3, sample, lambda ids: " ".join(map(str, ids)))
    assert row == {
        "step": 3,
        "prompt_id": "p",
        "prompt": "5",
        "prefix_len": 1,
        "stop_reason": "stop",
        "tokens": ["6", " 7"],
        "teacher_logprob": [-0.5, -4.0],
        "student_logprob": [-1.0, -2.0],
        "reward": [0.5, -2.0],  # −0.5 + 1, −4 + 2
        "advantage": [0.0, -2.0],
        "divergence_weight": [0.0, 1.0],
        "imitation_weight": [0.001, 0.0],
    }


def test_numbers_of_a_model_that_was_not_asked_are_read_again(tmp_path: Path) -> None:
    """A method may read neither model: its rows have no log-probs and no reward. Older rows lack the log-probs."""
    unread = TokenSignal(torch.full((1, 2), math.nan))
    rollout = Rollout((5,), (6, 7), 0, (-1.0, -2.0), 0, "stop", "p", 0)
    sample = credit_sample(rollout, unread, unread, TokenCredit(*[torch.zeros(1, 2)] * 3))
    row = sample_row(1, sample, lambda ids: " ".join(map(str, ids)))
    older = {key: value for key, value in row.items() if not key.endswith("_logprob")} | {"step": 2}
    (tmp_path / "samples.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(older) + "\n")
    assert [found["reward"] for found in read_samples(tmp_path)] == [[None, None]] * 2
    (tmp_path / "samples.jsonl").write_text(json.dumps(row | {"teacher_logprob": [None]}) + "\n")
    with pytest.raises(UserError, match="not equally many"):
        read_samples(tmp_path)


def test_token_texts_make_up_the_completion() -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer("Then 8 - 5 = 3 . So").input_ids
    texts = token_texts(ids, lambda part: str(tokenizer.decode(list(part))))
    assert "".join(texts) == tokenizer.decode(ids)
    assert len(texts) == len(ids)


def test_character_of_several_tokens_belongs_to_the_last() -> None:
    def decode(ids: object) -> str:
        return bytes(ids).decode("utf-8", "replace")  # type: ignore[call-overload]

    assert token_texts(list("aé漢".encode()), decode) == ["a", "", "é", "", "", "漢"]
    assert "".join(token_texts([0xFF] * 9 + [0x61], decode)).endswith("a")


def test_resumed_run_cuts_the_rows_after_its_checkpoint(tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in sample_rows([1, 4, 8], ["a", "b"]))
    (tmp_path / "samples.jsonl").write_text(text + '{"step": 9, "tok')  # killed while it wrote
    cut_rows(tmp_path, tmp_path / "checkpoint-4")
    assert [row["step"] for row in read_samples(tmp_path)] == [1, 4]
    cut_rows(tmp_path, None)
    assert read_samples(tmp_path) == []


def test_kinds_of_credit() -> None:
    (step,) = build_steps({"m": sample_rows([1], ["p", "a", "b", "c"])})
    (completion,) = step.completions
    assert [token.sign for token in completion.tokens] == ["prefix", "down", "none", "none"]
    assert [token.is_direct for token in completion.tokens] == [False, False, True, False]
    assert [token.strength for token in completion.tokens] == [0, 2, 0, 0]  # |−2| > 1 nat
    assert completion.counts == {"up": 0, "down": 1, "none": 2, "direct": 1, "prefix": 1}


@pytest.mark.parametrize(
    ("advantage", "divergence", "sign", "is_direct"),
    [(0.0, 0.0, "none", False), (-1.0, 0.5, "down", True), (0.2, 0.0, "up", False), (0.0, 1.0, "none", True)],
)
def test_kind_of_a_students_token(advantage: float, divergence: float, sign: str, is_direct: bool) -> None:
    row = {**sample_rows([1], ["x"])[0], "prefix_len": 0}
    row |= {"advantage": [advantage], "divergence_weight": [divergence]}
    token = build_steps({"m": [row]})[0].completions[0].tokens[0]
    assert (token.sign, token.is_direct) == (sign, is_direct)


def test_a_token_tells_its_numbers() -> None:
    """Token, r, both log-probs and the credit; a dash for what an older run did not keep."""
    row = sample_rows([1], ["p", " 7"])[0] | {"teacher_logprob": [-1.0, -2.5], "student_logprob": [-1.0, -0.5]}
    token = build_steps({"m": [row]})[0].completions[0].tokens[1]
    assert token.told == (
        "“ 7”\nr = -2 nats: log π_T -2.5, log π_S -0.5\ncredit: advantage -2, divergence weight 0, imitation weight 0"
    )
    older = build_steps({"m": sample_rows([1], ["p", " 7"])})[0].completions[0].tokens[1]
    assert "log π_T –, log π_S –" in older.told


def test_the_step_with_most_outliers_is_the_busiest() -> None:
    """Rewards below −5 nats on tokens that the student wrote; the teacher's prefix does not count."""
    rewards = {1: [-9.0, -1.0, -6.0], 2: [0.0, -6.0, -7.0], 3: [0.0, -8.0, None]}
    rows = [row | {"reward": rewards[row["step"]]} for row in sample_rows([1, 2, 3], ["p", "a", "b"])]
    steps = build_steps({"m": rows, "n": rows[:1]})
    assert [step.outliers for step in steps] == [2, 2, 1]  # of two methods at step 1
    assert busiest_step(steps) == 0 and busiest_step(steps[1:]) == 0 and busiest_step([]) == 0
    assert busiest_step(build_steps({"m": rows})) == 1


def test_methods_are_shown_on_the_same_prompt_and_long_completions_are_cut() -> None:
    rows = sample_rows([1, 2], ["x"] * 9000)
    steps = build_steps({"a": rows, "b": rows})
    assert [(step.step, [c.label for c in step.completions]) for step in steps] == [(1, ["a", "b"]), (2, ["a", "b"])]
    shown = [len(c.tokens) for step in steps for c in step.completions]
    assert shown == [1500] * 4  # 6,000 over two methods at two steps
    assert steps[0].completions[0].left_out == 7500


def test_sampled_text_may_hold_any_line_separator(tmp_path: Path) -> None:
    """What `harness.files.read_rows` reads, the check before a run takes too."""
    key = {"task": "t", "protocol_hash": "p", "item_id": "1", "repeat": 0}
    row = json.dumps({**key, "text": "a\u2028b\x85c\x0bd", "extracted": None}, ensure_ascii=False)
    (tmp_path / "texts.jsonl").write_text(row + "\n")
    check_leftovers(tmp_path)

"""Teacher responses: cached by fingerprint, resumable, spliced by ids; prefixes clamped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness.rollout import Sampling
from harness.seeds import seed_of
from harness.training import guidance
from harness.training.guidance import Draw, TeacherResponses, choose_prefixes, fingerprint, load_or_make_responses
from harness.training.prompts import Prompt
from harness.types import Method
from tests.scripted import ScriptedEngine

SAMPLING = Sampling(20, stop_ids=(1,))
PROMPTS = [Prompt(str(i), (5, i + 2)) for i in range(7)]


class FixedLength(Method):
    """Asks for the same prefix everywhere."""

    def __init__(self, length: int) -> None:
        self.length = length

    def prefix_lengths(self, progress, response_lengths, uniforms):
        return torch.full_like(response_lengths, self.length)


def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda request: (10 + int(request.prompt_id), 20, 1))


def test_made_once_and_read_again(tmp_path: Path) -> None:
    first = engine()
    made = load_or_make_responses(tmp_path, Draw("teacher"), first, PROMPTS, SAMPLING, range(7))
    assert made.completion_ids["3"] == (13, 20, 1)
    assert made.text_of(PROMPTS[3]) == (13, 20)  # a prefix is cut from the text without its end token
    second = engine()
    again = load_or_make_responses(tmp_path, Draw("teacher"), second, PROMPTS, SAMPLING, range(7))
    assert again == made
    assert len(first.requests) == 7
    assert not second.requests


def test_only_what_a_run_needs_is_made(tmp_path: Path) -> None:
    first, second = engine(), engine()
    made = load_or_make_responses(tmp_path, Draw("teacher"), first, PROMPTS, SAMPLING, [4, 1, 4])
    assert [request.prompt_id for request in first.requests] == ["1", "4"]
    assert set(made.completion_ids) == {"1", "4"}
    more = load_or_make_responses(tmp_path, Draw("teacher"), second, PROMPTS, SAMPLING, [0, 1])
    assert [request.prompt_id for request in second.requests] == ["0"]
    assert more.completion_ids["1"] == made.completion_ids["1"]
    assert first.requests[0].seed != first.requests[1].seed


def test_every_training_seed_has_texts_of_its_own(tmp_path: Path) -> None:
    """The same for every method of a seed; those that all seeds share keep their draw."""
    seeds: dict[int | None, list[int]] = {}
    for seed in (None, 0, 1, 0):
        asked = engine()
        load_or_make_responses(tmp_path, Draw("teacher", seed), asked, PROMPTS, SAMPLING, range(7))
        seeds.setdefault(seed, [request.seed for request in asked.requests])
        assert len(asked.requests) == (0 if seed == 0 and len(seeds) == 3 else 7)
    assert len({seed for draws in seeds.values() for seed in draws}) == 3 * 7
    assert seeds[None] == [seed_of("teacher_responses", prompt.prompt_id) for prompt in PROMPTS]


def test_a_killed_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guidance, "REQUESTS_PER_PIECE", 2)
    path = tmp_path / f"responses-{fingerprint('teacher', PROMPTS, SAMPLING)}.jsonl"
    lines = [json.dumps({"prompt_id": str(i), "ids": [10 + i, 20, 1]}) + "\n" for i in range(3)]
    path.write_text("".join(lines) + '{"prompt_id": "3", "i')  # cut off in the middle of a row
    resumed = engine()
    made = load_or_make_responses(tmp_path, Draw("teacher"), resumed, PROMPTS, SAMPLING, range(7))
    assert [request.prompt_id for request in resumed.requests] == ["3", "4", "5", "6"]
    assert made == load_or_make_responses(tmp_path, Draw("teacher"), engine(), PROMPTS, SAMPLING, range(7))
    assert list(made.completion_ids) == [str(i) for i in range(7)]


def test_the_fingerprint_knows_teacher_prompts_and_sampling() -> None:
    base = fingerprint("teacher", PROMPTS, SAMPLING)
    assert base == fingerprint("teacher", list(PROMPTS), Sampling(20, stop_ids=(1,)))
    assert base != fingerprint("other", PROMPTS, SAMPLING)
    assert base != fingerprint("teacher", PROMPTS[:-1], SAMPLING)
    assert base != fingerprint("teacher", PROMPTS, Sampling(21, stop_ids=(1,)))
    assert base != fingerprint("teacher", [*PROMPTS[:-1], Prompt("6", (5, 9))], SAMPLING)


@pytest.mark.parametrize(
    ("wanted", "min_continuation", "expected"),
    [(0, 1, [0, 0, 0]), (3, 1, [3, 1, 0]), (100, 1, [4, 1, 0]), (100, 4, [1, 0, 0]), (-2, 1, [0, 0, 0])],
)
def test_prefixes_leave_room(wanted: int, min_continuation: int, expected: list[int]) -> None:
    """Responses of 5, 2 and 0 tokens: at most L − min_continuation, never below 0."""
    responses = [(7, 8, 9, 10, 11), (7, 8), ()]
    prefixes = choose_prefixes(FixedLength(wanted), responses, 0.0, torch.zeros(3), min_continuation)
    assert [len(p) for p in prefixes] == expected
    assert all(p == r[: len(p)] for p, r in zip(prefixes, responses, strict=True))


def test_a_response_without_an_end_keeps_its_last_token() -> None:
    responses = TeacherResponses({"0": (4, 5), "1": ()}, (1,))
    assert responses.text_of(PROMPTS[0]) == (4, 5)
    assert responses.text_of(PROMPTS[1]) == ()

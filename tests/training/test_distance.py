"""The distance to the teacher: against the sum over all completions, and as a part of a run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from baselines.opd import OPD
from baselines.sft import SFT
from harness.config.distance import DistanceConfig
from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.files import read_rows
from harness.results.record import DISTANCE_FILE, load_record
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.hf import HFEngine
from harness.scoring import Completion
from harness.scoring.hf import HFScorer
from harness.training import distance
from harness.training.distance import distances_along
from harness.training.held_out import TRAINED_ON, UNREACHED, held_out_prompts
from harness.training.job import run_job
from harness.training.prompts import prompt_order
from tests.conftest import execution, random_model
from tests.training.test_step import config_for
from tests.training.test_termination import ENDS, unlike  # noqa: F401

V, END, LENGTH, PROMPT, SAMPLES = 5, 1, 3, (2, 4), 1500


def completions(written: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Every completion: up to LENGTH tokens, ended by END or by the limit."""
    if written and (written[-1] == END or len(written) == LENGTH):
        yield written
        return
    for token in range(V):
        yield from completions((*written, token))


@torch.no_grad()
def log_probability(model: PreTrainedModel, completion: tuple[int, ...]) -> float:
    """Of a whole completion, by the model's own forward in float64."""
    logits = model(torch.tensor([[*PROMPT, *completion]])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(PROMPT) - 1 + i, token]) for i, token in enumerate(completion))


def test_both_directions_against_every_completion() -> None:
    """KL between distributions over all 85 completions of up to 3 of 5 tokens, summed exactly, against the mean over
    samples of the sum over positions: within 4 standard errors, which are under 3 % of it.
    """
    models = [random_model(seed, hidden, vocab=V).double() for seed, hidden in ((1, 64), (2, 96))]
    logs = [[log_probability(model, completion) for completion in completions()] for model in models]
    assert [sum(map(math.exp, column)) for column in logs] == pytest.approx([1, 1])
    scorers = tuple(HFScorer(model, V) for model in models)
    for writer, name in ((0, "reverse"), (1, "forward")):
        exact = sum(math.exp(p) * (p - q) for p, q in zip(logs[writer], logs[1 - writer], strict=True))
        requests = [RolloutRequest(str(seed), PROMPT, seed) for seed in range(SAMPLES)]
        rollouts = HFEngine(models[writer], V).generate(requests, Sampling(LENGTH, stop_ids=(END,)))
        found = distances_along(scorers, [Completion(PROMPT, r.completion_ids) for r in rollouts], (END,))
        sums = torch.tensor([float(getattr(one, name).sum()) for one in found])
        error = float(sums.std()) / math.sqrt(SAMPLES)
        assert error < 0.03 * exact
        assert abs(float(sums.mean()) - exact) < 4 * error


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scorers = tuple(HFScorer(random_model(seed, hidden), 64) for seed, hidden in ((1, 64), (2, 96)))
    texts = [Completion((2, 3, i), tuple(range(4, 5 + i))) for i in range(9)]
    whole = distances_along(scorers, texts, (END,))
    monkeypatch.setattr(distance, "PIECE_TOKENS", 7)
    assert [len(piece) for piece in distance._pieces(texts)] == [3, 1, 1, 1, 1, 1, 1]  # 1 + 2 + 3 tokens, 4, 5, …
    cut = distances_along(scorers, texts, (END,))
    for a, b, text in zip(whole, cut, texts, strict=True):
        assert len(a.reverse) == len(text.completion_ids)
        torch.testing.assert_close(a.reverse, b.reverse, rtol=1e-4, atol=1e-6)


def measured(random_pair: Path, tmp_path: Path, *, prompts: int = 8, **changes) -> RunConfig:
    """A run of 2 steps of 8 of the 24 prompts: 8 are not reached."""
    config = config_for(random_pair, tmp_path, OPD(), **{"steps": 2, **changes})
    evaluation = dataclasses.replace(config.evaluation, distance=DistanceConfig(prompts, None))
    return dataclasses.replace(config, evaluation=evaluation, method_name="opd")


def rows_of(config: RunConfig) -> list[dict]:
    return [row for _, row in read_rows(config.run_folder() / DISTANCE_FILE, torn_last_line="refuse", way_out="")]


def test_a_run_is_measured_once(random_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Summary in the record, prompts in the file; a finished run without it gets it without being trained again."""
    config = measured(random_pair, tmp_path)
    blind = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, distance=None))
    before = run_job(blind)
    assert before.status == "completed", before.reason
    assert before.distance is None
    assert not (config.run_folder() / DISTANCE_FILE).exists()
    weights = (config.run_folder() / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    record = run_job(config)
    assert (config.run_folder() / "checkpoint" / "model.safetensors").stat().st_mtime_ns == weights
    assert record == load_record(config.run_folder() / "record.json")
    rows = rows_of(config)
    assert record.distance is not None
    assert record.distance.reverse == tuple(row["reverse"] for row in rows)
    assert record.distance.tokens == tuple(row["tokens"] for row in rows)
    assert len(rows) == 8
    assert all(row["reverse"] > 0 < row["forward"] for row in rows)
    ended = [row for row in rows if row["stop_reason"] == "stop"]
    assert all((row["student_stop_at_end"] is None) == (row not in ended) for row in rows)
    if ended:
        mean = sum(row["student_stop_at_end"] for row in ended) / len(ended)
        assert record.distance.means["student_stop_at_end"] == pytest.approx(mean)
    monkeypatch.setattr(distance, "_measure", lambda *_: pytest.fail("measured twice"))
    assert run_job(config) == record


def test_methods_and_seeds_share_what_they_can(random_pair: Path, tmp_path: Path) -> None:
    """Untrained twice, by two names: the same distances. Another seed: other samples, other prompts."""
    config = measured(random_pair, tmp_path, prompts=4)
    student = dataclasses.replace(config, method_name="student", method=None)
    idle = measured(random_pair, tmp_path, prompts=4, learning_rate=1e-30)
    a, b = run_job(student), run_job(idle)
    assert a.distance is not None
    assert b.distance is not None
    assert a.distance.prompts_digest == b.distance.prompts_digest
    assert a.distance.reverse == pytest.approx(b.distance.reverse, rel=1e-5)  # no coordinate is the method
    caches = list((tmp_path / ".cache").glob("responses-*.jsonl"))
    assert len(caches) == 1
    assert {row["prompt_id"][:9] for _, row in read_rows(caches[0], torn_last_line="refuse", way_out="")} == {
        "distance:"
    }
    other = run_job(dataclasses.replace(student, seed=1))
    assert other.distance is not None
    assert other.distance.distance_hash == a.distance.distance_hash
    assert other.distance.prompts_digest != a.distance.prompts_digest
    teacher = run_job(dataclasses.replace(config, method_name="teacher", method=None))
    assert teacher.distance is None


def test_where_the_prompts_come_from(random_pair: Path, tmp_path: Path) -> None:
    from harness.models.loading import load_tokenizer

    config = measured(random_pair, tmp_path)
    tokenizer = load_tokenizer(config.setting.student)

    def chosen(config: RunConfig, count: int, task: str | None = None):
        return held_out_prompts(config, DistanceConfig(count, task), tokenizer)

    unreached = chosen(config, 8)
    assert unreached.source == UNREACHED
    reached = set(prompt_order(24, config.seed, 16))
    assert not reached & {int(prompt.prompt_id) for prompt in unreached.prompts}
    trained_on = chosen(config, 9)  # 16 + 9 of 24
    assert (trained_on.source, len(trained_on.prompts)) == (TRAINED_ON, 9)
    assert trained_on == chosen(dataclasses.replace(config, seed=5), 9)
    assert len(chosen(config, 1000).prompts) == 24
    task = chosen(config, 5, "arithmetic")
    assert task.source == "problems of the task arithmetic"
    first = json.loads((Path(__file__).parents[2] / "tasks" / "arithmetic" / "test.jsonl").read_text().splitlines()[0])
    assert task.prompts[0].prompt_id == first["id"]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": first["problem"]}], tokenize=False, add_generation_prompt=True
    )
    assert list(task.prompts[0].ids) == tokenizer(text, add_special_tokens=False)["input_ids"]
    short = dataclasses.replace(config, setting=dataclasses.replace(config.setting, max_prompt_tokens=5))
    with pytest.raises(UserError, match=r"evaluation\.distance\.task=arithmetic: problem 'test-0000' has"):
        chosen(short, 5, "arithmetic")
    with pytest.raises(UserError, match="at least 2"):
        DistanceConfig(1, None)


def test_one_prompt_has_no_interval(random_pair: Path, tmp_path: Path) -> None:
    """A file of one prompt is trained on, and not measured."""
    config = measured(random_pair, tmp_path, prompts_per_step=1)
    prompts = Path(config.setting.prompts)
    prompts.write_text(prompts.read_text().splitlines()[0] + "\n")
    config = dataclasses.replace(config, engine=execution(micro_batch_prompts=1))
    record = run_job(config)
    assert (record.status, record.distance) == ("completed", None), record.reason


def test_mapped_end_tokens_are_one_event(unlike: Path, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    """Both sample up to any token of the union, whose probability is the sum of all three, and their KL is of it."""
    config = dataclasses.replace(measured(unlike, tmp_path, termination="map"), method_name="student", method=None)
    scored: list[Completion] = []
    original = distances_along
    monkeypatch.setattr(
        distance, "distances_along", lambda s, texts, ids: scored.extend(texts) or original(s, texts, ids)
    )
    record = run_job(config)
    assert record.status == "completed", record.reason
    ended = [(row, text) for row, text in zip(rows_of(config), scored, strict=False) if row["stop_reason"] == "stop"]
    assert ended
    models = [random_model(1, 64), random_model(2, 96)]
    for row, text in ended:
        assert text.completion_ids[-1] == ENDS[0]
        ids = torch.tensor([[*text.prompt_ids, *text.completion_ids]])
        with torch.no_grad():
            s, t = (m(ids).logits[0, len(text.prompt_ids) - 1 : -1].double().softmax(-1) for m in models)
        others = [i for i in range(64) if i not in ENDS]
        s, t = (torch.cat([p[:, list(ENDS)].sum(-1, keepdim=True), p[:, others]], dim=1) for p in (s, t))
        assert row["student_stop_at_end"] == pytest.approx(float(s[-1, 0]), rel=1e-4)
        assert row["teacher_stop_at_end"] == pytest.approx(float(t[-1, 0]), rel=1e-4)
        assert row["reverse"] == pytest.approx(float((s * (s / t).log()).sum(-1).mean()), rel=1e-4)


def test_a_method_without_a_pass_is_measured(random_pair: Path, tmp_path: Path) -> None:
    config = measured(random_pair, tmp_path)
    prompts = Path(config.setting.prompts)
    texts = [{**json.loads(line), "reference": "9 ; add 4 : 3 ."} for line in prompts.read_text().splitlines()]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in texts))
    record = run_job(dataclasses.replace(config, method=SFT(), method_name="sft"))
    assert record.distance is not None, record.reason
    assert record.counters.scored_tokens == record.counters.teacher_tokens == 0 < record.counters.reference_tokens

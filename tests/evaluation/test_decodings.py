"""One checkpoint under several decodings: protocols, samples, what is read and drawn once, and what goes on after a
kill.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tasks.data
from harness.config.decodings import DECODINGS, chosen_by
from harness.config.settings import EvaluationConfig
from harness.errors import UserError
from harness.evaluation.checkpoint import CheckpointScoring, evaluate_missing, load_configured, load_development
from harness.files import ROOT
from harness.models.loading import load_tokenizer
from harness.results.record import RunRecord, load_record, write_record
from tests.evaluation.scoring import model_of, protocol_hashes
from tests.results.synthetic import run
from tests.scripted import ScriptedEngine

ALL = ["greedy", "paper", "sampled"]
PUBLISHED = ROOT / "results" / "tiny_cpu_earlier" / "runs.jsonl"  # made before decodings had names


def configured(**changes: Any) -> EvaluationConfig:
    """arithmetic under the three decodings, as conf/evaluation/tiny.yaml has it."""
    plain = EvaluationConfig(
        tasks=["arithmetic"],
        samples={},
        max_new_tokens={},
        sampling={},
        cut_decimals=[],
        data_dir=None,
        allow_unsandboxed_code=False,
        dev_task="arithmetic_dev",
        dev_every=45,
        decodings={"arithmetic": ALL},
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def tiny_tokenizer() -> Any:
    return load_tokenizer("harness/tiny/checkpoints/student", None)


class Counting(ScriptedEngine):
    """Writes the end token; remembers how it was asked, and dies at a request."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__(lambda request: [])
        self.asked: Counter[tuple[float, float]] = Counter()
        self.seeds: dict[float, list[int]] = {}
        self._dies_at = dies_at

    def generate(self, requests, sampling, progress=None, finished=None):
        def counted(index, rollout):
            if sum(self.asked.values()) == self._dies_at:
                raise KeyboardInterrupt
            self.asked[sampling.temperature, sampling.top_p] += 1
            self.seeds.setdefault(sampling.temperature, []).append(requests[index].seed)
            if finished is not None:
                finished(index, rollout)

        return super().generate(requests, sampling, progress, counted)


def score(folder: Path, record: RunRecord, engine: ScriptedEngine, tokenizer: Any, **changes: Any) -> RunRecord:
    evaluation = configured(**changes)
    loaded = load_configured(evaluation, evaluation.tasks, tokenizer)
    checkpoint = CheckpointScoring(
        folder=folder,
        identity="weights",
        engine="hf",
        open_model=lambda: contextlib.nullcontext(model_of(engine, tokenizer, 512)),
        done=lambda latest: write_record(folder / "record.json", latest),
    )
    return evaluate_missing(record, evaluation, loaded, checkpoint)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_decoding_has_its_protocol_and_rows(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """256 problems: one greedy sample, and the task's four of each of the others."""
    engine = Counting()
    record = score(tmp_path, run("opd", 0), engine, tiny_tokenizer)
    assert [(e.column, e.problems, e.samples) for e in record.evaluations] == [
        ("arithmetic@greedy", 256, 1),
        ("arithmetic@paper", 256, 4),
        ("arithmetic@sampled", 256, 4),
    ]
    assert engine.asked == {(0.0, 1.0): 256, (0.6, 0.95): 1024, (1.0, 1.0): 1024}
    hashes = [e.protocol_hash for e in record.evaluations]
    for name in ("items.jsonl", "texts.jsonl"):
        assert Counter(row["protocol_hash"] for row in rows(tmp_path / name)) == dict(
            zip(hashes, (256, 1024, 1024), strict=True)
        )
    assert len(rows(tmp_path / "generations.jsonl")) == 2304
    assert len(list((tmp_path / "lm_eval").iterdir())) == 3
    assert load_record(tmp_path / "record.json") == record


def test_the_random_numbers_are_those_of_the_task_alone(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """So that a score at temperature 1 is what it was before the others stood beside it, and methods stay paired."""
    together, alone = Counting(), Counting()
    score(tmp_path / "a", run("opd", 0), together, tiny_tokenizer)
    score(tmp_path / "b", run("opd", 0), alone, tiny_tokenizer, decodings={})
    assert together.seeds[1.0] == alone.seeds[1.0] == together.seeds[0.6]


def test_sampled_is_the_own_protocol_of_a_task_that_samples_so(tiny_tokenizer: Any) -> None:
    """Published rows keep their hash; the others are protocols of their own."""
    (row,) = json.loads(PUBLISHED.read_text().splitlines()[0])["evaluations"]
    published = {row["task"]: row["protocol_hash"]}
    loaded = load_configured(configured(), ["arithmetic"], tiny_tokenizer)
    hashes = {column: task.protocol_hash for column, task in loaded.items()}
    assert hashes["arithmetic@sampled"] == published["arithmetic"] and len(set(hashes.values())) == 3
    own = load_configured(configured(decodings={}), ["arithmetic"], tiny_tokenizer)
    assert {column: task.protocol_hash for column, task in own.items()} == published
    assert protocol_hashes(["arithmetic"], tiny_tokenizer) == published


def test_the_data_are_read_once(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = tasks.data.json_lines
    monkeypatch.setattr(tasks.data, "json_lines", lambda path: opened.append(path.name) or original(path))
    loaded = load_configured(configured(), ["arithmetic"], tiny_tokenizer)
    assert len(loaded) == 3 and sorted(opened) == ["dev.jsonl", "test.jsonl"]


def test_the_development_task_has_one_decoding(tiny_tokenizer: Any) -> None:
    (task,) = load_development(configured(decodings={"all": ALL}), tiny_tokenizer).values()
    assert (task.name, task.decoding, task.samples) == ("arithmetic_dev", "", 1)


def test_a_protocol_that_was_scored_before_gets_its_name_and_is_not_scored_again(
    tmp_path: Path, tiny_tokenizer: Any
) -> None:
    before = score(tmp_path, run("opd", 0), Counting(), tiny_tokenizer, decodings={})
    engine = Counting()
    after = score(tmp_path, before, engine, tiny_tokenizer)
    assert [e.column for e in after.evaluations] == ["arithmetic@sampled", "arithmetic@greedy", "arithmetic@paper"]
    assert set(engine.asked) == {(0.0, 1.0), (0.6, 0.95)}


def test_a_killed_evaluation_goes_on_within_its_decoding(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """Dead at sample 300: 256 greedy ones and 44 of the paper's are there, and 980 and 1,024 are still to be drawn."""
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path, run("opd", 0), Counting(dies_at=300), tiny_tokenizer)
    left = load_record(tmp_path / "record.json")
    assert [e.column for e in left.evaluations] == ["arithmetic@greedy"]
    engine = Counting()
    assert len(score(tmp_path, left, engine, tiny_tokenizer).evaluations) == 3
    assert engine.asked == {(0.6, 0.95): 980, (1.0, 1.0): 1024}


def test_samples_of_the_protocol_are_those_of_sampled_decodings(tiny_tokenizer: Any) -> None:
    loaded = load_configured(configured(samples={"arithmetic": 2}), ["arithmetic"], tiny_tokenizer)
    assert {column: task.samples for column, task in loaded.items()} == {
        "arithmetic@greedy": 1,
        "arithmetic@paper": 2,
        "arithmetic@sampled": 2,
    }


@pytest.mark.parametrize("name,chosen", [("greedy", (0.0, 1.0, 0)), ("paper", (0.6, 0.95, 0)), ("sampled", (1, 1, 0))])
@pytest.mark.parametrize(
    "own", [{}, {"do_sample": False}, {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}]
)
def test_a_name_means_the_same_whatever_the_task_says(name: str, chosen: tuple[float, float, int], own: dict) -> None:
    applied = DECODINGS[name].applied({**own, "max_gen_toks": 7})
    assert chosen_by(applied) == chosen and applied["max_gen_toks"] == 7


@pytest.mark.parametrize(
    "changes,said",
    [
        ({"decodings": {"arithmetic": ["beam"]}}, "evaluation.decodings.arithmetic names 'beam'; known: greedy, paper"),
        ({"decodings": {"all": ["greedy", "greedy"]}}, "names a decoding twice"),
        ({"order_by": "beam"}, "evaluation.order_by='beam' is not among evaluation.decodings.arithmetic"),
        ({"sampling": {"all": {"temperature": 0.3}}}, r"sets temperature of arithmetic, and so does .*arithmetic=\[\]"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        configured(**changes)


def test_an_empty_list_is_the_task_s_own(tiny_tokenizer: Any) -> None:
    own = configured(decodings={"all": ALL, "arithmetic": []}, sampling={"arithmetic": {"temperature": 0.3}})
    assert list(load_configured(own, ["arithmetic"], tiny_tokenizer)) == ["arithmetic"]

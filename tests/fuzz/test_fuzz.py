"""Damaged and odd input of every kind: exit code 0, or one sentence and exit code 2; nothing half-written.

Readers are asked in this process: what a command does with a UserError, and with nothing else, is a sentence.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from omegaconf import OmegaConf

from harness.config.methods import register_methods
from harness.config.settings import RunConfig, Setting
from harness.config.sweep import composing
from harness.console.monitor import _read as read_progress
from harness.errors import UserError
from harness.evaluation.checkpoint import check_rows
from harness.evaluation.journal import read_journal
from harness.evaluation.standalone import EvaluateConfig
from harness.files import ROOT
from harness.leaderboard import main as leaderboard
from harness.models.loading import load_tokenizer
from harness.results.collect import read_published
from harness.results.escape import code, csv_cell, latex, markdown, one_line
from harness.results.markdown import table
from harness.results.record import load_record, read_metrics
from harness.results.samples import read_samples
from harness.results.seal import damage_of, seal
from harness.training.checks import check_execution, check_leftovers
from harness.training.guidance import _read as read_responses
from harness.training.prompts import load_prompts
from harness.training.recorder import complete_checkpoint
from tests.report.folders import write_everything
from tests.results.synthetic import run, small_comparison, write_runs

from .strategies import TEXTS, VALUES, changed, damaged, holds, rows_of

QUICK, MANY = 60, 1000  # examples of every property: in `make test`, and in the slow tests
Property = tuple[st.SearchStrategy[Any], Callable[[Any], None]]
STUDENT = ROOT / "harness" / "tiny" / "checkpoints" / "student"


def answers(ask: Callable[[], Any]) -> Any:
    """What is answered; a UserError of one sentence is an answer, any other error is none."""
    try:
        return ask()
    except UserError as error:
        assert str(error).strip() and "Traceback" not in str(error)
        return error


def composed(command: str, *overrides: str) -> dict[str, Any]:
    from hydra import compose

    register_methods()
    with composing():
        raw = OmegaConf.to_container(compose(command, overrides=list(overrides)), resolve=True)
    assert isinstance(raw, dict)
    return {str(key): value for key, value in raw.items()}


def planned(raw: dict[str, Any]) -> RunConfig:
    """As harness.config.sweep plans a run."""
    with composing():
        return RunConfig.from_hydra(OmegaConf.create(raw))


def of_runs(home: Path) -> Property:
    sound = composed("config", "method=tropd", "evaluation=tiny", "engine=server")

    def check(raw: dict[str, Any]) -> None:
        config = answers(lambda: planned(raw))
        if isinstance(config, RunConfig):
            numbers = [value for value in vars(config.setting).values() if isinstance(value, float)]
            assert all(map(math.isfinite, numbers)) and config.seed >= 0
            folder = Path(os.path.normpath(config.results_dir / f"{config.setting.name}-00000000"))
            assert folder.parent == Path(os.path.normpath(config.results_dir))
            answers(lambda: check_execution([config]))

    return changed(sound), check


def of_evaluations(home: Path) -> Property:
    sound = composed("evaluate", "evaluation=qwen3", f"checkpoint={STUDENT}")

    def check(raw: dict[str, Any]) -> None:
        config = answers(lambda: EvaluateConfig.from_raw(raw))
        if isinstance(config, EvaluateConfig):
            assert config.name is None or Path(config.name).name == config.name

    return changed(sound), check


def of_settings(home: Path) -> Property:
    sound = json.loads((ROOT / "results/tiny_cpu/runs.jsonl").read_text(encoding="utf-8").split("\n")[0])["setting"]
    return changed(sound), lambda raw: answers(lambda: Setting.of_record(raw)) and None


def of_records(home: Path) -> Property:
    """A table of a comparison of which a record was changed: printed whole, or one sentence."""
    folder = write_runs(home / "runs", [run("opd", 0, [1, 2]), run("tropd", 0, [2, 2]), run("student", 0, [0, 1])])
    path = folder / "opd" / "seed0" / "record.json"
    sound = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = leaderboard([str(folder)])
        assert status in (0, 2), status
        assert (status == 2) == err.getvalue().startswith("error: ")
        assert err.getvalue().count("\n") == (status == 2)
        assert not {c for c in out.getvalue() + err.getvalue() if ord(c) < 32} - {"\n"}
        assert not list(home.rglob("*.tmp"))
        written = [(folder / f"leaderboard.{kind}").exists() for kind in ("md", "json", "csv", "tex")]
        assert all(written) or not any(written)

    content = changed(json.loads(sound)).map(lambda raw: json.dumps(raw).encode())
    return st.one_of(content, damaged(sound)), check


def of_published(home: Path) -> Property:
    path = home / "runs.jsonl"
    lines = (ROOT / "results/tiny_cpu/runs.jsonl").read_bytes().split(b"\n")[:2]

    def check(content: bytes) -> None:
        path.write_bytes(content)
        answers(lambda: read_published(path))

    return st.one_of(rows_of(changed(json.loads(lines[0]))), damaged(b"\n".join(lines))), check


def of_run_files(home: Path) -> Property:
    """metrics, samples, items, texts, journal, cached responses and progress of a run, one of them damaged."""
    folder = write_everything(write_runs(home / "runs", small_comparison()), [], steps=4) / "opd" / "seed0"
    journal = {"key": "k", "ids": [1, 2], "stop_reason": "stop"}
    progress = {"phase": "training", "done": 1, "total": 4, "pid": 1, "at": 1.0, "rate": 0.5}
    (folder / "generations.jsonl").write_text(json.dumps(journal) + "\n")
    (folder / "responses.jsonl").write_text(json.dumps({"prompt_id": "a", "ids": [1, 2]}) + "\n")
    (folder / "progress.json").write_text(json.dumps(progress))
    names = ["metrics", "samples", "items", "texts", "generations", "responses"]
    files = {f"{name}.jsonl": (folder / f"{name}.jsonl").read_bytes() for name in names}
    files["progress.json"] = (folder / "progress.json").read_bytes()
    files["record.json"] = (folder / "record.json").read_bytes()
    readers: list[Callable[[], Any]] = [
        lambda: load_record(folder / "record.json"),
        lambda: read_metrics(folder),
        lambda: read_samples(folder),
        lambda: check_rows(folder),
        lambda: read_journal(folder / "generations.jsonl"),
        lambda: read_responses(folder / "responses.jsonl"),
        lambda: read_progress(folder / "progress.json"),
        lambda: check_leftovers(folder),
    ]

    def check(chosen: tuple[str, bytes]) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(chosen[1] if name == chosen[0] else content)
        for reader in readers:
            answers(reader)

    def odd(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        row = json.loads(files[name].split(b"\n")[0]) if name.endswith("l") else json.loads(files[name])
        return st.one_of(rows_of(changed(row)), damaged(files[name])).map(lambda content: (name, content))

    return st.one_of(*map(odd, files)), check


def of_prompts(home: Path) -> Property:
    tokenizer = load_tokenizer(str(STUDENT))
    turn = {"role": "user", "content": "Start with 1"}
    rows = [
        {"id": "a", "prompt": "Start with 1", "reference": "1"},
        {"messages": [{"role": "system", "content": "x"}, turn, {"role": "assistant", "content": "2"}]},
        {"conversations": [{"from": "human", "value": "Start with 2"}, {"from": "gpt", "value": "2"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Start with 1"}], "tool_calls": None}]},
    ]
    sound = "".join(json.dumps(row) + "\n" for row in rows).encode()

    def check(chosen: tuple[str, bytes]) -> None:
        path = home / f"prompts.{chosen[0]}"
        path.write_bytes(chosen[1])
        found = answers(lambda: load_prompts(str(path), tokenizer, split="train", max_tokens=64, template_kwargs={}))
        if isinstance(found, list):
            assert found and all(0 < len(prompt.ids) <= 64 for prompt in found)
            for prompt in found:
                prompt.prompt_id.encode("utf-8")

    content = st.one_of(*(rows_of(changed(row)) for row in rows), rows_of(VALUES), damaged(sound))
    return st.tuples(st.sampled_from(["jsonl", "json", "csv", "parquet", "jsonl.gz"]), content), check


def of_checkpoints(home: Path) -> Property:
    """Two sealed checkpoints, of which the newer one is damaged: never taken."""
    trainer, kept = home / "run" / "trainer", home / "kept"
    names = ["model.safetensors", "optimizer.pt", "scheduler.pt", "complete"]
    home.joinpath("run").mkdir()
    (home / "run" / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    for step in (1, 2):
        (trainer / f"checkpoint-{step}").mkdir(parents=True)
        for name in names[:-1]:
            (trainer / f"checkpoint-{step}" / name).write_bytes(bytes(range(64)) * step)
        seal(trainer / f"checkpoint-{step}", [home / "run" / "metrics.jsonl"] if step == 2 else [])
    shutil.copytree(trainer, kept)
    sound = {name: (kept / "checkpoint-2" / name).read_bytes() for name in names}

    def check(chosen: tuple[str, bytes]) -> None:
        name, content = chosen
        shutil.rmtree(trainer)
        shutil.copytree(kept, trainer)
        (trainer / "checkpoint-2" / name).write_bytes(content)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            found = complete_checkpoint(trainer)
        assert found is not None and damage_of(found, home / "run") == ""
        if content != sound[name] and name != "complete":
            assert found.name == "checkpoint-1" and name in said.getvalue()
        if found.name == "checkpoint-1":
            assert "checkpoint-2 is damaged" in said.getvalue()

    return st.one_of(*(damaged(sound[name]).map(lambda content, name=name: (name, content)) for name in names)), check


def of_texts(home: Path) -> Property:
    def check(text: str) -> None:
        for shown in (one_line(text), markdown(text), code(text), csv_cell(text), latex(text)):
            shown.encode("utf-8")
            assert shown.isprintable() or not {c for c in shown if ord(c) < 32 or c in "\u2028\u202e\x85"}
        assert table(["a", "b"], [[text, "x"]]).count("\n") == 2
        row = table(["a", "b"], [[text, "x"]]).split("\n")[2]
        assert row.replace("\\\\", "").replace("\\|", "").count("|") == 3
        sink = io.StringIO()
        csv.writer(sink).writerow([csv_cell(text), "x"])
        (back,) = csv.reader(io.StringIO(sink.getvalue()))
        assert back[1] == "x" and not back[0].startswith(("=", "+", "-", "@"))

    return st.one_of(TEXTS, st.text()), check


PROPERTIES: dict[str, Callable[[Path], Property]] = {
    "runs": of_runs,
    "evaluations": of_evaluations,
    "settings": of_settings,
    "records": of_records,
    "published": of_published,
    "run files": of_run_files,
    "prompts": of_prompts,
    "checkpoints": of_checkpoints,
    "texts": of_texts,
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_some(tmp_path: Path, name: str) -> None:
    holds(*PROPERTIES[name](tmp_path), QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES)
def test_many(tmp_path: Path, name: str) -> None:
    holds(*PROPERTIES[name](tmp_path), MANY)

"""What tasks need of a local folder: docs/evaluation.md says it, loaders ask for it, the dry run looks for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.config.sweep import planned_runs
from harness.errors import UserError
from harness.evaluation.loading import TaskOptions, known_tasks, read_data
from harness.files import ROOT
from harness.planning.dry_run import missing_lines
from harness.run import compare
from tasks.ifbench import resources

ROWS = re.findall(r"^\| (`.*?) \| (.*?) \| .*\|$", (ROOT / "docs" / "evaluation.md").read_text("utf-8"), re.MULTILINE)
NAMES = [name for names, _ in ROWS for name in re.findall(r"`([a-z0-9_]+)`", names) if name in known_tasks()]


def row_of(task: str) -> str:
    """What the page says that the task reads."""
    (found,) = [files for names, files in ROWS if f"`{task}`" in names]
    return found


def test_every_task_has_its_row() -> None:
    assert sorted(NAMES) == sorted(known_tasks())


@pytest.mark.parametrize("task", known_tasks())
def test_the_row_is_what_the_loader_asks_for(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an empty folder it misses the file that the page names first for it."""
    monkeypatch.setattr(resources, "_found", lambda name: True)  # NLTK's data, which are looked for before the file
    try:
        read_data(task, TaskOptions(data_dir=str(tmp_path)))
    except UserError as error:
        asked = re.search(r"contains (\S+\.\w+)", str(error))
        assert asked is not None and f"`{asked[1]}`" in row_of(task)
    else:
        assert row_of(task).startswith("nothing")


def test_the_dry_run_names_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["method=opd", "seed=0", "evaluation.tasks=[gsm8k,arithmetic]", f"evaluation.data_dir={tmp_path}"]
    assert compare([*given, "dry_run=true"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Missing: ")]
    assert str(tmp_path / "gsm8k" / "test.jsonl") in line


def test_resources_are_looked_for_without_a_folder_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCHMARK_DATA", raising=False)
    monkeypatch.setattr(resources, "_found", lambda name: "stopwords" not in name)
    (run,) = planned_runs(["method=opd", "seed=0", "hydra.mode=RUN"])
    (line,) = missing_lines(run, {"ifbench": "ifbench"})
    assert line.startswith("Missing: IFBench needs the NLTK data corpora/stopwords: ")

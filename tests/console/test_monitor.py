"""The live view: reads the runs' own progress files, and says nothing where nobody looks."""

from __future__ import annotations

import io
import time
from pathlib import Path

from rich.console import Console

from harness.console.monitor import Monitor
from harness.console.progress import RunProgress


def rendered(monitor: Monitor) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(monitor.render())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_line_per_run_that_is_being_worked_on(tmp_path: Path) -> None:
    folders = [tmp_path / "tropd" / "seed0", tmp_path / "opd" / "seed0", tmp_path / "eopd" / "seed0"]
    for folder in folders:
        folder.mkdir(parents=True)
    monitor = Monitor(folders, Console(file=io.StringIO()))
    training, finished = (RunProgress(folder / "progress.json", steps=90) for folder in folders[:2])
    row = {"tokens/student": 1000.0, "time/rollout_s": 0.2, "time/scoring_s": 0.1, "time/update_s": 0.2}
    training.step(1, row)
    time.sleep(0.3)
    training.step(2, {**row, "eval/arithmetic_dev": 0.42})
    finished.finish("completed")
    text = rendered(monitor)
    (line,) = [line for line in text.splitlines() if "tropd seed0" in line]
    for part in ("training", "2/90", "accuracy 42 %", "2,000 tokens/s", "s left"):
        assert part in line
    assert "opd seed0" not in text.replace("tropd seed0", "")
    assert "1 of 3 runs finished" in text


def test_an_earlier_commands_progress_is_not_shown(tmp_path: Path) -> None:
    folder = tmp_path / "tropd" / "seed0"
    folder.mkdir(parents=True)
    RunProgress(folder / "progress.json", steps=90).phase("training", 3, 90)
    time.sleep(0.01)
    assert "tropd" not in rendered(Monitor([folder], Console(file=io.StringIO())))


def test_quiet_when_the_output_is_not_a_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    with Monitor([tmp_path], Console(file=out)):
        time.sleep(0.05)
    assert out.getvalue() == ""

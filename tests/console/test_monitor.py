"""The live view: reads the runs' own progress files, and says nothing where nobody looks."""

from __future__ import annotations

import io
import re
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


def test_quiet_at_first_when_the_output_is_not_a_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    with Monitor([tmp_path], Console(file=out)):
        time.sleep(0.05)
    assert out.getvalue() == ""


def test_a_file_gets_plain_lines(tmp_path: Path) -> None:
    folder = tmp_path / "tropd" / "seed0"
    folder.mkdir(parents=True)
    out = io.StringIO()
    monitor = Monitor([folder], Console(file=out, width=40))
    RunProgress(folder / "progress.json", steps=90).phase("training", 1, 90)
    monitor.report()
    run, summary = out.getvalue().splitlines()
    assert run == "tropd seed0, training, 1/90"
    assert re.fullmatch(r"0 of 1 runs finished, \d s", summary)


def test_it_says_that_workers_start(tmp_path: Path) -> None:
    assert "workers are starting" in rendered(Monitor([tmp_path / "opd" / "seed0"], Console(file=io.StringIO())))


def test_the_whole_end_is_foretold_from_what_is_done_by_this_command(tmp_path: Path) -> None:
    """Three runs, one finished before: from 1/3 to 1/3 + 0.9 * (60/90) / 3 = 8/15 in 60 s, so 7/15 take 140 s more."""
    names = ["opd", "eopd", "tropd", "student"]
    folders = [tmp_path / name / "seed0" for name in names]
    for folder in folders:
        folder.mkdir(parents=True)
    RunProgress(folders[0] / "progress.json", steps=90).finish("completed")
    monitor = Monitor(folders, Console(file=io.StringIO()))
    RunProgress(folders[1] / "progress.json", steps=90).phase("training", 60, 90)
    monitor.started_at = time.time() - 60
    assert re.search(r"1 of 4 runs finished, 1 min \d s, about 2 min 2\d s left", rendered(monitor))


def test_an_interruption_says_where_every_run_goes_on(tmp_path: Path) -> None:
    folders = [tmp_path / name / "seed0" for name in ("opd", "eopd", "tropd", "gkd", "sft", "jsd")]
    monitor = Monitor(folders, Console(file=io.StringIO()))
    for folder in folders[:-1]:
        folder.mkdir(parents=True)
    opd, eopd, tropd, gkd, sft = (RunProgress(folder / "progress.json", steps=90) for folder in folders[:-1])
    row = {"tokens/student": 1000.0}
    for step in range(1, 33):
        opd.step(step, row)
        if step == 30:
            opd.saved(30)
    opd.phase("training", 32, 90)
    eopd.step(1, row)
    tropd.phase("evaluating arithmetic")
    gkd.finish("completed")
    sft.step(46, row)  # resumed at 45
    time.sleep(0.3)
    sft.step(47, row)
    assert monitor.where_it_stands() == [
        "opd seed0: stopped at step 32; goes on from step 30",
        "eopd seed0: stopped before its first checkpoint; starts again",
        "tropd seed0: stopped while it was evaluated; goes on with the samples that it has",
        "sft seed0: stopped at step 47; goes on from step 45",
        "1 of 6 runs finished, 1 not begun",
    ]
    assert "47/90 (resumed at 45)" in rendered(monitor)

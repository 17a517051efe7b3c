"""The regime map: cells, replicates, who wins, and what equal cost means, on made records and on published ones."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.config.decodings import column_of
from harness.config.methods import register_methods
from harness.config.sweep import planned_runs
from harness.errors import UserError
from harness.files import ROOT, locate
from harness.regime_map import main
from harness.results.cells import (
    MethodRuns,
    at_equal_cost,
    at_equal_steps,
    differences_to_opd,
    find_lead,
    load_cells,
    load_decodings,
    of_budget,
    of_common_methods,
)
from harness.results.collect import load_records, publish_records
from harness.results.leaderboard import build_leaderboard
from harness.results.publish import publish as publish_comparison
from harness.results.record import Counters
from harness.results.regimes import render
from harness.results.statistics import Difference
from tests.results.synthetic import run, write_metrics, write_runs

STUDENT, TEACHER = "harness/tiny/checkpoints/student_latent", "harness/tiny/checkpoints/teacher"
MIDDLE = [2, 1, 3, 2, 0, 4, 1, 3] * 8  # successes of four samples on 64 problems: a mean of a half


def record(
    method: str, replicate: int, gain: int, *, steps: int = 10, tokens: int = 1000, rate: float = 1e-3, **changes
):
    """A run of replicate k: its own seed and its own student, in a folder that is called alike."""
    setting = {"name": f"r{replicate}", "student": f"students/{replicate}/student_latent", "teacher": TEACHER}
    setting |= {"learning_rate": rate, "lr_schedule": "cosine", "steps": steps}
    shifted = [min(4, max(0, count + gain)) for count in MIDDLE[replicate:] + MIDDLE[:replicate]]
    counters = Counters(steps=steps, student_tokens=tokens, scored_tokens=tokens)
    changes = {"training_hash": f"hash-{rate}-{steps}", "counters": counters, **changes}
    return run(method, replicate, shifted, setting=setting, **changes)


def publish(folder: Path, *records) -> Path:
    publish_records(folder / "runs.jsonl", records)
    return folder


def test_replicates_of_several_folders_make_a_cell(tmp_path: Path) -> None:
    folders = [publish(tmp_path / str(k), record("opd", k, 0), record("tropd", k, 1)) for k in range(3)]
    folders.append(publish(tmp_path / "fast", record("opd", 0, 0, rate=3e-3)))
    cells = load_cells(folders, "arithmetic")
    assert list(cells) == [("student_latent", "cosine", 1e-3), ("student_latent", "cosine", 3e-3)]
    by_label = {runs.label: runs for runs in cells["student_latent", "cosine", 1e-3]}
    assert sorted(by_label["tropd"].evaluations) == [(f"students/{k}/student_latent", k) for k in range(3)]
    assert by_label["tropd"].flops is None  # those students are not on this machine
    verdict = find_lead(list(by_label.values()))
    assert (verdict.leader, verdict.rivals) == ("tropd", ())
    assert "tropd" in (text := render(cells, "arithmetic")) and ", wins" in text and ", alone" in text


def test_no_winner_where_the_difference_is_noise(tmp_path: Path) -> None:
    records = [record("opd", k, 0) for k in range(3)] + [record("tropd", k, (1, -1, 0)[k]) for k in range(3)]
    (runs,) = load_cells([publish(tmp_path / "a", *records)], "arithmetic").values()
    assert find_lead(runs).rivals


def test_of_many_rivals_the_first_are_named(tmp_path: Path) -> None:
    records = [record(f"m{i}", k, (1, -1, 0)[(k + i) % 3]) for k in range(3) for i in range(7)]
    cells = load_cells([publish(tmp_path / "a", *records)], "arithmetic")
    (lead,) = map(find_lead, cells.values())
    assert len(lead.rivals) == 6
    assert f"; or {', '.join(lead.rivals[:4])} and 2 more" in render(cells, "arithmetic")


def test_equal_means_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Not in that of a set, which is another in every process."""
    records = [record(f"m{i}", k, 0) for k in range(3) for i in range(9)]
    (lead,) = map(find_lead, load_cells([publish(tmp_path / "a", *records)], "arithmetic").values())
    assert (lead.leader, lead.rivals) == ("m0", tuple(f"m{i}" for i in range(1, 9)))


def test_one_replicate_decides_nothing(tmp_path: Path) -> None:
    (runs,) = load_cells([publish(tmp_path / "a", record("opd", 0, 0), record("tropd", 0, 2))], "arithmetic").values()
    assert (find_lead(runs).leader, find_lead(runs).rivals) == ("tropd", ("opd",))
    assert "; undecided, one replicate" in render({("student_latent", "cosine", 1e-3): runs}, "arithmetic")


def test_equal_cost_takes_the_longest_runs_within_opds(tmp_path: Path) -> None:
    """OPD writes 1,000 tokens in 10 steps; guided needs 500 in 10, 990 in 20 and 1,500 in 30; gkd 1,100 in 10."""
    records = [
        record("opd", 0, 0, tokens=1000),
        record("guided", 0, 0, tokens=500),
        record("gkd", 0, 0, tokens=1100),
    ]
    longer = [record("guided", 0, 1, steps=20, tokens=990), record("guided", 0, 2, steps=30, tokens=1500)]
    folders = [publish(tmp_path / "a", *records), *(publish(tmp_path / str(r.setting["steps"]), r) for r in longer)]
    (runs,) = load_cells(folders, "arithmetic").values()
    assert {(r.label, r.steps) for r in at_equal_steps(runs)} == {("opd", 10), ("guided", 10), ("gkd", 10)}
    chosen = at_equal_cost(runs, lambda r: r.student_tokens)
    assert {(r.label, r.steps) for r in chosen} == {("opd", 10), ("guided", 20)}
    assert at_equal_cost([r for r in runs if r.label != "opd"], lambda r: r.student_tokens) == []


def budgeted(method: str, replicate: int, gain: int, operations: float = 1e9, spent: float = 1.0):
    """A run of a budget of operations, and the share of it that it spent."""
    made = record(method, replicate, gain, training_hash="budgeted")
    made.setting["operations"] = operations
    counters = dataclasses.replace(made.counters, operations=spent * operations)
    return dataclasses.replace(made, counters=counters)


def test_at_equal_operations_nobody_is_left_out(tmp_path: Path) -> None:
    """Three methods of equal steps, one of which wrote 1.1 times OPD's tokens; and with a budget, which two of them met
    within 2 %: the dearer one has fewer steps there, not no place.
    """
    equal = [record(m, k, g, tokens=n) for m, g, n in (("opd", 0, 1000), ("gkd", 1, 1100)) for k in range(3)]
    bought = [budgeted(m, k, g, spent=s) for m, g, s in (("opd", 0, 0.985), ("gkd", 1, 1.015)) for k in range(3)]
    folders = [publish(tmp_path / "steps", *equal), publish(tmp_path / "operations", *bought)]
    (runs,) = load_cells(folders, "arithmetic").values()
    assert {(r.label, r.budget) for r in at_equal_steps(runs)} == {("opd", None), ("gkd", None)}
    assert {(r.label, r.budget) for r in of_budget(runs, "operations")} == {
        (m, ("operations", 1e9)) for m in ("opd", "gkd")
    }
    (cell,) = load_cells(folders, "arithmetic")
    row = next(line for line in render({cell: runs}, "arithmetic").splitlines() if line.startswith("| student_latent"))
    steps, tokens, operations = row.split("|")[5:8]
    assert "gkd" in steps and ", wins" in steps
    assert "opd" in tokens and "; without gkd (1.10 x)" in tokens
    assert "gkd" in operations and ", wins" in operations
    (alone,) = load_cells(folders[1:], "arithmetic").values()
    assert at_equal_steps(alone) == at_equal_cost(alone, lambda r: r.student_tokens) == []
    assert "| gkd |" in render({cell: alone}, "arithmetic")


def test_who_did_not_keep_to_the_budget_is_refused(tmp_path: Path) -> None:
    folder = publish(tmp_path / "a", budgeted("opd", 0, 0), budgeted("gkd", 0, 0, spent=1.03))
    with pytest.raises(UserError, match=r"gkd seed 0 spent 1\.030 of setting\.operations=1e\+09"):
        load_cells([folder], "arithmetic")


def test_operations_are_known_where_the_models_are(tmp_path: Path) -> None:
    here = record("opd", 0, 0)
    here.setting["student"] = STUDENT
    (runs,) = load_cells([publish(tmp_path / "a", here)], "arithmetic").values()
    assert runs[0].flops == 2 * 78_272 * 1000 + (2 * 301_920 + 6 * 78_272) * 1000


def test_published_operations_outlive_the_models(tmp_path: Path) -> None:
    """Published while its student is here, known when it has gone; to six digits."""
    here = record("opd", 0, 0)
    student = here.setting["student"] = str(tmp_path / "student_latent")
    shutil.copytree(ROOT / STUDENT, student)
    folder = write_runs(tmp_path / "runs", [here])
    write_metrics(folder, "opd", 0, [{"step": 1, "loss": 1.0}])
    publish_comparison(folder, tmp_path / "published")
    shutil.rmtree(student)
    (runs,) = load_cells([tmp_path / "published"], "arithmetic").values()
    assert runs[0].flops == 1_230_020_000  # 2 x 78,272 x 1,000 + (2 x 301,920 + 6 x 78,272) x 1,000 = 1,230,016,000


def test_it_agrees_with_the_leaderboards() -> None:
    for folder in (path.parent for path in (ROOT / "results").glob("tiny_*/runs.jsonl")):  # the published ones
        board = build_leaderboard(load_records(folder), "")
        for decoding, cells in load_decodings([folder], "arithmetic").items():
            (runs,) = cells.values()
            verdict, column = find_lead(runs), column_of("arithmetic", decoding)
            assert (verdict.leader if not verdict.rivals else None) == board.winners[column]
            for row in board.rows:
                if row.label in verdict.intervals:
                    assert verdict.intervals[row.label] == row.scores[column].interval


def test_a_cell_with_more_methods_has_no_more_candidates(tmp_path: Path) -> None:
    folder = publish(tmp_path / "a", *(record(m, 0, 0) for m in ("opd", "tropd", "gkd")))
    fast = publish(tmp_path / "b", *(record(m, 0, 0, rate=3e-3) for m in ("opd", "tropd")))
    cells = of_common_methods(load_cells([folder, fast], "arithmetic"))
    assert [sorted(r.label for r in runs) for runs in cells.values()] == [["opd", "tropd"]] * 2


def test_the_summary_counts_the_cells_against_opd(tmp_path: Path) -> None:
    """Two cells: a method one success of four better in every problem that has room, and one that is worse by as much
    in one cell only.
    """
    slow = [record(m, k, gain) for m, gain in (("opd", 0), ("up", 1), ("mixed", -1)) for k in range(4)]
    noise = (1, -1, 1, -1)
    fast = [record(m, k, g, rate=3e-3) for k in range(4) for m, g in (("opd", 0), ("up", 1), ("mixed", noise[k]))]
    cells = load_cells([publish(tmp_path / "a", *slow), publish(tmp_path / "b", *fast)], "arithmetic")
    # of eight problems 2 1 3 2 0 4 1 3 one is full (+7/8 of a quarter = 21.875 points) and one empty (-7/8 of a
    # quarter); the noise cancels
    lines = render(cells, "arithmetic").splitlines()
    assert "| up | 2 / 0 / 0 (+21.9 to +21.9) | 71.9 (student_latent, cosine 0.001) |" in lines
    assert "| mixed | 0 / 1 / 1 (-21.9 to +0.0) | 28.1 (student_latent, cosine 0.001) |" in lines
    assert "| opd | – | 50.0 (student_latent, cosine 0.001) |" in lines
    one = load_cells([publish(tmp_path / "c", *(record(m, 0, 0) for m in ("opd", "up")))], "arithmetic")
    assert "Against opd" not in render(one, "arithmetic")  # one replicate decides nothing


def test_the_table_against_opd_is_one_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """p = 0.03 in one cell is resolved; in each of two cells, Holm makes it 0.06 in both."""
    cells = load_cells(
        [
            publish(
                tmp_path / str(rate), *(record(m, k, g, rate=rate) for m, g in (("opd", 0), ("up", 1)) for k in (0, 1))
            )
            for rate in (1e-3, 3e-3)
        ],
        "arithmetic",
    )

    def borderline(table: dict[str, MethodRuns]) -> dict[str, Difference]:
        return {"up": replace(differences_to_opd(table)["up"], p_value=0.03)}

    monkeypatch.setattr("harness.results.regimes.differences_to_opd", borderline)
    assert "| up | 0 / 0 / 2 (" in render(cells, "arithmetic")
    assert "| up | 1 / 0 / 0 (" in render(dict([next(iter(cells.items()))]), "arithmetic")


def test_bad_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = publish(tmp_path / "a", record("opd", 0, 0))
    other = publish(tmp_path / "b", record("tropd", 1, 0, training_hash="another"))
    for arguments, message in (
        ([good, other], "Mixtures refused"),
        ([good, good], "is there twice"),
        ([good, "--task", "aime24"], "0 evaluations on aime24"),
        ([tmp_path / "none"], "is not a folder"),
    ):
        assert main([str(argument) for argument in arguments]) == 2
        assert message in capsys.readouterr().err


def test_the_map_is_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(publish(tmp_path / "a", record("opd", 0, 0))), "--output", str(tmp_path / "map.md")]) == 0
    assert (tmp_path / "map.md").read_text() == capsys.readouterr().out


@pytest.mark.parametrize("experiment", ["all_rows", "regime_map", "guidance_early", "equal_operations"])
def test_the_pieces_of_the_study(tmp_path: Path, experiment: str) -> None:
    """The script's calls, taken down by a stand-in for Python: each regime of a replicate has its own student, name and
    seed.
    """
    calls = tmp_path / "calls"
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    stand_in.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(stand_in), "WORK": str(tmp_path / "work")}
    script = ROOT / "results" / "small_scale" / "run.sh"
    subprocess.run([script, experiment, "2", "3"], check=True, env=environment)
    runs = [line.split()[2:] for line in calls.read_text().splitlines() if line.startswith("-m harness.run ")]
    assert len(runs) == 6
    students = {
        regime: locate(one(f"setting={regime}").setting.student) for regime in ("tiny_cpu", "tiny_latent", "tiny_style")
    }
    for arguments in runs:
        given = dict(argument.split("=", 1) for argument in arguments)
        assert Path(given["setting.student"]).name == Path(students[given["setting"]]).name
        assert (
            given["setting.name"] == f"{given['setting']}_students"
        )  # one comparison, whose seeds have students of their own
        assert f"student_seed{given['seed']}" in given["setting.student"]
        assert given["experiment"] == experiment
        assert ("setting.operations" in given) == (experiment == "equal_operations")
        assert (ROOT / given["setting.student"] / "recipe.json").is_file()  # shipped


def one(*arguments: str):
    register_methods()
    (found,) = planned_runs([*arguments, "method=opd", "hydra.mode=RUN"])
    return found

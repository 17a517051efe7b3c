"""The published numbers: read as typed rows, and checked against their own arithmetic."""

import math
from collections import defaultdict
from pathlib import Path

import pytest

from harness.config.methods import find_methods
from harness.errors import UserError
from harness.files import ROOT
from harness.results.reference import AVERAGE, ReferenceRow, load_reference, published_rows
from harness.types import UNTRAINED

ROWS = load_reference()

# (successes counted in, rounded or cut): the grid that the cells of a benchmark lie on, hence its problems × samples
GRIDS = {
    "aime24": (30 * 32, math.floor),
    "aime25": (30 * 32, math.floor),
    "amc23": (40 * 32, math.floor),
    "livecodebench_v6": (175, round),
    "gpqa_diamond": (198 * 4, round),
    "ifbench": (294, round),
}
# printed averages that are not the rounded mean of their cells, and why
OTHER_AVERAGES = {("deepseek_single", "Teacher OR1-Math-7B"): "cut: the mean is 58.486"}
# cells off their grid, and why
OFF_GRID = {("qwen3_multi", "Teacher", "gpqa_diamond"): "58.86 is 103/175, its LiveCodeBench cell"}


def cells(table: str) -> dict[str, dict[str, ReferenceRow]]:
    """Label -> benchmark -> cell."""
    found: dict[str, dict[str, ReferenceRow]] = defaultdict(dict)
    for row in ROWS:
        if row.table == table:
            found[row.label][row.benchmark] = row
    return found


def test_every_table_is_there() -> None:
    counts = {table: len(cells(table)) for table in {row.table for row in ROWS}}
    assert counts == {
        "table1_ablation": 11,
        "deepseek_single": 10,
        "deepseek_multi": 5,
        "qwen3_multi": 7,
        "figure1": 1,
        "qwen3_report": 6,
        "r1_distill_deepseek": 1,
        "r1_distill_open_r1": 1,
        "r1_distill_verl": 1,
    }
    assert len({(row.table, row.label, row.benchmark) for row in ROWS}) == len(ROWS)


def test_some_cells_by_eye() -> None:
    assert cells("table1_ablation")["FKL top-64"]["amc23"].value == 4.21
    assert cells("deepseek_multi")["TrOPD"]["livecodebench_v6"].value == 22.29
    assert cells("qwen3_multi")["TrOPD"]["ifbench"].value == 42.18
    assert cells("qwen3_report")["Qwen3-1.7B (thinking)"]["aime25"].value == 36.8
    assert cells("qwen3_multi")["TrOPD"]["gpqa_diamond"].confirmed
    assert not cells("qwen3_multi")["TrOPD"]["amc23"].confirmed


def test_printed_averages_are_the_means_of_their_cells() -> None:
    off = set()
    for table in {row.table for row in ROWS}:
        for label, row in cells(table).items():
            if AVERAGE in row:
                values = [cell.value for name, cell in row.items() if name != AVERAGE]
                if abs(sum(values) / len(values) - row[AVERAGE].value) > 0.005 + 1e-9:
                    off.add((table, label))
                    assert row[AVERAGE].doubt, (table, label)
    assert off == set(OTHER_AVERAGES)


def test_cells_lie_on_the_grid_of_their_benchmark() -> None:
    """Every printed percentage is k successes of n, which tells n: AIME over 32 samples, LiveCodeBench once over 175,
    GPQA four times.
    """
    off = set()
    for row in ROWS:
        if row.benchmark in GRIDS and row.source.startswith("arXiv 2606.01249"):
            n, shorten = GRIDS[row.benchmark]
            printable = {shorten(10_000 * k / n + 1e-9) for k in range(n + 1)}
            if round(100 * row.value) not in printable:
                off.add((row.table, row.label, row.benchmark))
                assert row.doubt
    assert off == set(OFF_GRID)


@pytest.mark.parametrize(
    ("table", "label", "benchmark", "points"),
    [
        ("qwen3_multi", "TrOPD", "livecodebench_v6", 3.6),  # sqrt(0.36 x 0.64 / 175)
        ("qwen3_multi", "TrOPD", "ifbench", 2.9),  # sqrt(0.4218 x 0.5782 / 294)
        ("qwen3_multi", "TrOPD", "aime24", 1.6),  # sqrt(0.5208 x 0.4792 / 960)
        ("qwen3_multi", "TrOPD", "aime25", 1.6),  # sqrt(0.4406 x 0.5594 / 960)
        ("deepseek_single", "TrOPD", "aime24", 1.6),  # sqrt(0.3854 x 0.6146 / 960)
    ],
)
def test_the_least_noise_of_published_cells(table: str, label: str, benchmark: str, points: float) -> None:
    error = cells(table)[label][benchmark].standard_error
    assert error is not None and round(error, 1) == points


def test_gains_of_one_run_are_within_the_noise_of_it() -> None:
    """LiveCodeBench and IFBench, TrOPD against the next method: 36.00 - 35.43 is one problem of 175, 42.18 - 38.78 ten
    of 294.
    """
    table = cells("qwen3_multi")
    for benchmark, other, solved in (("livecodebench_v6", "REOPOLD", 1), ("ifbench", "Entropy OPD", 10)):
        ours, theirs = table["TrOPD"][benchmark], table[other][benchmark]
        assert round((ours.value - theirs.value) / 100 * (ours.trials or 0)) == solved
        assert ours.value - theirs.value < 1.96 * math.hypot(ours.standard_error or 0, theirs.standard_error or 0)


def test_noise_is_stated_only_where_the_design_is_known() -> None:
    assert cells("qwen3_multi")["TrOPD"]["average"].standard_error is None
    assert cells("qwen3_report")["Qwen3-1.7B (thinking)"]["aime24"].standard_error is None
    for benchmark, (trials, _) in GRIDS.items():
        assert {row.trials for row in ROWS if row.benchmark == benchmark and row.table.startswith("deepseek")} <= {
            trials
        }


def test_published_rows_are_chosen_by_setting_or_by_name() -> None:
    assert {row.table for row in published_rows("deepseek_math")} == {"table1_ablation", "deepseek_single"}
    assert {row.table for row in published_rows("tiny_cpu", ["qwen3_multi"])} == {"qwen3_multi"}
    assert published_rows("tiny_cpu") == ()
    with pytest.raises(UserError, match="no published table 'tabel1'"):
        published_rows("tiny_cpu", ["tabel1"])


def test_the_two_values_of_one_cell_are_both_in_doubt() -> None:
    """TrOPD on AMC23: 78.51 in Table 1, 77.03 in the main table, which is also TrOPD Clip's; each
    average fits its own.
    """
    first, main = cells("table1_ablation")["TrOPD FKL"], cells("deepseek_single")["TrOPD"]
    clip = cells("table1_ablation")["TrOPD Clip"]["amc23"]
    assert (first["amc23"].value, main["amc23"].value, clip.value) == (78.51, 77.03, 77.03)
    assert first["amc23"].doubt and main["amc23"].doubt and clip.doubt
    with_other = (sum(main[b].value for b in main if b not in ("amc23", AVERAGE)) + 78.51) / 5
    assert with_other == pytest.approx(40.93, abs=0.005)


def test_equal_rows_of_the_two_names_of_one_method() -> None:
    clip, reopold = cells("table1_ablation")["Clip Outlier"], cells("deepseek_single")["REOPOLD"]
    for benchmark in ("aime24", "aime25", "amc23"):
        assert clip[benchmark].value == reopold[benchmark].value


def test_names_are_ours() -> None:
    tasks = {path.parent.name for path in (ROOT / "tasks").glob("*/*.yaml")}
    for row in ROWS:
        assert row.method is None or row.method in (*UNTRAINED, *find_methods()), row
        assert 0 <= row.value <= 100
        if row.source.startswith("arXiv 2606.01249"):
            assert row.benchmark in {*tasks, AVERAGE}, row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("values: [1.0]", "values: [1.0, 2.0]"), "2 values for 1 benchmarks"),
        (("method: opd", "methd: opd"), "method is missing"),
        (("source: s", "source: s\n    page: 3"), "unknown key 'page'"),
        (("label: b, bench", "label: c, bench"), "'c' / 'aime24' is no cell"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    good = """tables:
  - name: t
    caption: c
    setting: null
    source: s
    benchmarks: [aime24]
    rows:
      - {label: b, method: opd, values: [1.0]}
    doubts:
      - {label: b, benchmarks: [aime24], text: why}
"""
    (tmp_path / "t.yaml").write_text(good)
    assert load_reference(tmp_path) == [ReferenceRow("t", None, "b", "opd", "aime24", 1.0, "s", "why", False)]
    assert change[0] in good
    (tmp_path / "t.yaml").write_text(good.replace(*change))
    with pytest.raises(UserError, match=message):
        load_reference(tmp_path)

"""Several comparisons on one page: the map, its numbers, and each comparison in short."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path

import pytest

from harness.report.__main__ import main
from harness.report.heat import heat_maps, names_of
from harness.report.source import Source, load_source
from harness.results.record import RunRecord
from tests.report.folders import write_everything
from tests.report.test_page import Outline
from tests.results.synthetic import SETTING, decoded_runs, run, write_runs

BASE = [0, 1, 2, 2, 3, 1, 0, 2]


def cell(rate: float, better: int, **changes: object) -> list[RunRecord]:
    """A comparison at one rate: tropd solves `better` samples of 4 more than opd on each of 8 problems and 3 seeds."""
    setting = {**SETTING, "student": "models/small", "learning_rate": rate, "lr_schedule": "constant", **changes}
    options = {"setting": setting, "training_hash": f"hash {rate} {changes}"}
    return [
        run(method, seed, [count + more for count in BASE], **options)
        for method, more in (("opd", 0), ("tropd", better))
        for seed in range(3)
    ]


def sources(tmp_path: Path, *comparisons: list[RunRecord]) -> list[Source]:
    folders = [write_runs(tmp_path / f"folder{n}", records) for n, records in enumerate(comparisons)]
    return [load_source(folder, "made", None) for folder in folders]


def test_cells_of_a_regime_map_by_hand(tmp_path: Path) -> None:
    """tropd is 1/4 above opd at one rate and level at the other: +25.0, the largest of the map, and 0.0."""
    (found,), is_regime_map = heat_maps(sources(tmp_path, cell(0.001, 1), cell(0.002, 0)))
    assert is_regime_map
    assert (found.title, found.groups) == ("arithmetic", (("small", 2),))
    assert found.columns == ("constant 0.001", "constant 0.002")
    ((label, (first, second)),) = found.rows
    assert label == "tropd" and first is not None and second is not None
    assert (first.text, first.sign, first.share) == ("+25.0", "up", 1.0)
    assert (second.text, second.share) == ("+0.0", 0.0)
    assert re.fullmatch(
        r"small, constant 0\.001: \+25\.0 \[.*\] points over opd, (not )?resolved; scores 59\.4 \[.*\] %", first.told
    )  # 11 of 32 for opd, 19 of 32 for tropd


def test_regimes_stand_over_their_rates(tmp_path: Path) -> None:
    cells = [cell(0.001, 1), cell(0.002, 0), cell(0.001, 1, student="models/large")]
    (found,), _ = heat_maps(sources(tmp_path, *cells))
    assert found.groups == (("large", 1), ("small", 2))


def test_comparisons_that_are_no_map_stand_side_by_side(tmp_path: Path) -> None:
    """One rate and student, but another type of numbers: they must not stand in one cell."""
    other = [dataclasses.replace(r, method=r.method.replace("tropd", "eopd")) for r in cell(0.001, 0, dtype="float64")]
    found, is_regime_map = heat_maps(sources(tmp_path, cell(0.001, 1), other))
    assert not is_regime_map
    assert found[0].columns == ("folder0", "folder1")
    assert [(label, [c and c.text for c in cells]) for label, cells in found[0].rows] == [
        ("tropd", ["+25.0", None]),
        ("eopd", [None, "+0.0"]),
    ]


def test_all_maps_of_a_page_have_one_scale(tmp_path: Path) -> None:
    """Greedily tropd is 100 points above opd, sampled 25: a quarter of the colour."""
    solved = {"opd": {"greedy": 0, "sampled": 1}, "tropd": {"greedy": 1, "sampled": 2}}
    settings = [{**SETTING, "student": "m", "learning_rate": rate, "lr_schedule": "constant"} for rate in (0.1, 0.2)]
    cells = [[dataclasses.replace(r, setting=s) for r in decoded_runs(solved)] for s in settings]
    maps, is_regime_map = heat_maps(sources(tmp_path, *cells))
    assert is_regime_map and [found.title for found in maps] == ["arithmetic, greedy", "arithmetic, sampled"]
    assert [[c and c.share for c in row] for found in maps for _, row in found.rows] == [[1.0, 1.0], [0.25, 0.25]]


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    found = [load_source(write_runs(tmp_path / name / "runs", cell(0.001, 1)), "made", None) for name in ("x", "y")]
    assert names_of(found) == ["x/runs", "y/runs"]
    assert names_of(found[:1]) == ["runs"]


def test_page_of_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, better in zip(folders, (1, 0), strict=True):
        write_everything(folder, cell(0.001 * (better + 1), better), metrics=["eval/arithmetic_dev"])
    assert main([*map(str, folders)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'report.html'} (")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    links = [str(value)[1:] for name, value in outline.attributes if name == "href" and str(value).startswith("#")]
    assert set(links) <= set(outline.ids) and {"c0", "c1"} <= set(links)
    assert not {"script", "iframe", "object", "form", "base"} & set(outline.tags)
    names = [str(value) for name, value in outline.attributes if name == "name" and "axis" in str(value)]
    assert set(names) == {"c0-axis", "c1-axis"}  # each comparison chooses its own
    assert '<h2 id="h-map">Regime map</h2>' in page
    assert f"python -m harness.report {folders[0]} {folders[1]}" in html.unescape(page)
    assert page.count("The whole page of this comparison: ") == 2
    assert main([*map(str, folders), f"output={tmp_path / 'x.html'}"]) == 0
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == page


def test_one_folder_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_runs(tmp_path / "a", cell(0.001, 1))
    assert main([str(folder), f"{tmp_path}/../{tmp_path.name}/a"]) == 2
    assert "is given twice" in capsys.readouterr().err
    assert main([f"output={tmp_path / 'x.html'}"]) == 2
    assert "no folder is given" in capsys.readouterr().err

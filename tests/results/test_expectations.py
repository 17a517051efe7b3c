"""Bounds on scores and metrics: values by hand, and errors that name the key."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from harness.errors import UserError
from harness.results.collect import load_records
from harness.results.expectations import (
    Expectation,
    Measured,
    measure_expectations,
    parse_expectations,
    print_measured,
    read_yaml,
)

from .synthetic import run, small_comparison, write_metrics, write_runs

KNOBS = {"changed_knobs": {"beta": 0.5}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_runs(tmp_path, [*small_comparison(), run("tropd", 0, [4] * 8, **KNOBS)])
    for seed, values in enumerate(([8.0, 2.0, 4.0, 6.0], [1.0, 1.0, 3.0], [2.0, 5.0])):
        rows = [{"step": step, "loss/total": value} for step, value in enumerate(values, start=2)]
        write_metrics(tmp_path, "opd", seed, [{"step": 1, "other": 1.0}, *rows])
    write_metrics(tmp_path, "tropd-0.5", 0, [{"step": 1, "loss/total": 7.0}])
    return tmp_path


def measured(folder: Path, value: str, minus: str | None = None) -> float:
    [outcome] = measure_expectations([Expectation("", value, minus, at_least=-100)], folder)
    return outcome.measured


def test_scores_and_their_difference(folder: Path) -> None:
    assert measured(folder, "score.arithmetic.opd") == pytest.approx(16 / 32)
    assert measured(folder, "score.arithmetic.tropd", "score.arithmetic.student") == pytest.approx((23 - 2) / 32)
    assert measured(folder, "score.arithmetic.tropd (beta=0.5)") == 1.0  # a label with a dot


@pytest.mark.parametrize(
    ("summary", "value"),
    [
        ("mean", (5 + 5 / 3 + 3.5) / 3),
        ("first", (8 + 1 + 2) / 3),
        ("last", (6 + 3 + 5) / 3),
        ("second_half_mean", (5 + 2 + 5) / 3),  # of 4, 6 | 1, 3 | 5
    ],
)
def test_metric_summaries_are_means_over_seeds(folder: Path, summary: str, value: float) -> None:
    assert measured(folder, f"metric.opd.loss/total.{summary}") == pytest.approx(value)
    assert measured(folder, f"metric.tropd (beta=0.5).loss/total.{summary}") == 7.0


def test_bounds(folder: Path) -> None:
    score = "score.arithmetic.opd"
    outcomes = measure_expectations(
        [
            Expectation("met", score, at_least=0.5, at_most=0.5),
            Expectation("too low", score, at_least=0.51),
            Expectation("too high", score, at_most=0.49),
        ],
        folder,
        load_records(folder),
    )
    assert outcomes == [
        Measured("met", 0.5, ">= 0.5 and <= 0.5", True),
        Measured("too low", 0.5, ">= 0.51", False),
        Measured("too high", 0.5, "<= 0.49", False),
    ]
    sink = io.StringIO()
    print_measured(outcomes, Console(file=sink))
    assert sink.getvalue().count("FAILED") == 2 and "\x1b" not in sink.getvalue()


def test_value_that_is_not_a_number_fails(folder: Path) -> None:
    write_metrics(folder, "opd", 0, [{"step": 1, "loss/total": math.nan}])
    [outcome] = measure_expectations([Expectation("finite", "metric.opd.loss/total.last", at_most=1e9)], folder)
    assert not outcome.ok


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("accuracy.arithmetic.opd", "starts with score. or metric."),
        ("score.algebra.opd", "unknown task 'algebra'; .*arithmetic"),
        ("score.arithmetic.typo", "no completed run of 'typo' .*known: eopd, opd"),
        ("metric.typo.loss/total.mean", "unknown method 'typo'"),
        ("metric.reopold.loss/total.mean", "unknown method 'reopold'"),  # it did not finish
        ("metric.opd.loss/total.median", "summaries: mean, first"),
        ("metric.opd.mean", "summaries: mean, first"),
        ("metric.opd.loss/typo.mean", "has no 'loss/typo'; known: loss/total, other"),
        ("metric.eopd.loss/total.mean", "eopd seed 0 has no metrics.jsonl here"),
    ],
)
def test_unknown_names_are_named(folder: Path, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        measured(folder, value)
    assert value in str(error.value)


def test_a_torn_last_line_is_left_out_and_a_broken_one_is_named(folder: Path) -> None:
    whole = measured(folder, "metric.opd.loss/total.mean")
    path = folder / "opd/seed1/metrics.jsonl"
    with path.open("a") as sink:
        sink.write('{"step": 5, "loss/to')
    assert measured(folder, "metric.opd.loss/total.mean") == whole
    for rest, problem in (
        ("\n", "not valid JSON"),
        ('tal": 1}\n{"loss/total": 1}\n', "a row of metrics has a step"),
        ('tal": 1}\n{"step": 5}\n', "step 5 where step 6 should stand"),
        ('tal": 1}\n{"step": 7}\n', "step 7 where step 6 should stand"),
        ('tal": "1"}\n', "loss/total must be float, not '1'"),
    ):
        path.write_text(path.read_text() + rest)
        with pytest.raises(UserError, match=rf"opd/seed1/metrics.jsonl, line \d: {problem}.*; delete the folder"):
            measured(folder, "metric.opd.loss/total.mean")
        path.write_text(path.read_text().removesuffix(rest))


def test_expectations_come_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "expectations.yaml"
    path.write_text("- {name: learns, value: score.arithmetic.tropd, minus: score.arithmetic.student, at_least: 0.1}\n")
    assert parse_expectations(read_yaml(path, "expectations"), "file") == [
        Expectation("learns", "score.arithmetic.tropd", "score.arithmetic.student", at_least=0.1)
    ]
    path.write_text("- [")
    with pytest.raises(UserError, match="is not YAML"):
        parse_expectations(read_yaml(path, "expectations"), "file")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path / "absent.yaml", "expectations")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "must be a list"),
        ("text", "must be a list"),
        ([7], "entry 1 is 7"),
        ([{"name": "n", "value": "v", "atleast": 1}], "entry 1 has the unknown key atleast"),
        ([{"value": "v", "at_least": 1}], "name must be text"),
        ([{"name": "n", "value": "v", "minus": 3, "at_least": 1}], "minus must be text"),
        ([{"name": "n", "value": "v", "at_least": "high"}], "at_least must be a number, got 'high'"),
        ([{"name": "n", "value": "v"}], "has no bound"),
    ],
)
def test_bad_entries_are_named(entries: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_expectations(entries, "file")

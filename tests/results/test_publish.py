"""Publishing: what a table needs, in pieces, with what is kept of the metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.results.collect import load_records
from harness.results.publish import publish, rebuild_leaderboard

from .synthetic import FILES, replicate, run, small_comparison, write_metrics, write_runs


def test_published_comparison_rebuilds_to_the_same_bytes(tmp_path: Path) -> None:
    folder, published = write_runs(tmp_path / "runs", small_comparison()), tmp_path / "published"
    original = rebuild_leaderboard(folder, "made")
    publish(folder, published)
    files = {path.name: path.read_bytes() for path in published.iterdir()}
    assert sorted(files) == [*FILES, "runs.jsonl"]
    assert len(files["runs.jsonl"]) < 4096 * len(small_comparison())
    rebuilt = rebuild_leaderboard(published, f"python -m harness.leaderboard {published}")
    assert {path.name: path.read_bytes() for path in published.iterdir()} == files
    assert rebuilt.rows == original.rows and rebuilt.failed == original.failed
    assert rebuilt.comparisons == original.comparisons


def test_pieces_published_one_after_the_other_are_one_comparison(tmp_path: Path) -> None:
    whole, published = write_runs(tmp_path / "whole", small_comparison()), tmp_path / "published"
    for seed in (0, 1, 2, 1):  # seed 1 twice: its runs take the place of themselves
        pieces = [record for record in small_comparison() if record.seed == seed]
        publish(write_runs(tmp_path / f"piece{seed}", pieces), published)
    publish(whole, tmp_path / "at_once")
    assert (published / "runs.jsonl").read_bytes() == (tmp_path / "at_once" / "runs.jsonl").read_bytes()
    publish(write_runs(tmp_path / "again", [run("opd", 0, [0] * 8)]), published)
    scores = {
        (record.label, record.seed): record.evaluations[0].score
        for record in load_records(published)
        if record.evaluations
    }
    assert (scores["opd", 0], scores["opd", 2], len(load_records(published))) == (0.0, 0.5, len(small_comparison()))
    before = (published / "runs.jsonl").read_bytes()
    with pytest.raises(UserError, match="Mixtures refused"):
        publish(write_runs(tmp_path / "other", [run("opd", 3, [1] * 8, training_hash="bbbb2222")]), published)
    assert (published / "runs.jsonl").read_bytes() == before


def test_replicates_are_published_into_one_table(tmp_path: Path) -> None:
    """Each in a comparison folder of its own, since its student is in its hash."""
    for seed in (1, 2):
        records = [replicate(method, seed, f"s{seed}") for method in ("opd", "tropd")]
        board = publish(write_runs(tmp_path / f"folder{seed}", records), tmp_path / "published")
    assert (board.seeds, board.training_hash) == ((1, 2), "hash of s1, hash of s2")
    assert [record.provenance["inputs"]["student"] for record in load_records(tmp_path / "published")] == [
        *("sha256:s1", "sha256:s2"),
        *("sha256:s1", "sha256:s2"),
    ]
    with pytest.raises(UserError, match="eopd seed 2 and opd seed 2 were made from two students of seed 2"):
        publish(write_runs(tmp_path / "folder3", [replicate("eopd", 2, "s3")]), tmp_path / "published")


def test_published_runs_keep_the_mean_of_each_metric_over_the_second_half_of_the_steps(tmp_path: Path) -> None:
    folder = write_runs(tmp_path / "runs", small_comparison())
    norms, lengths = (9.0, 9.0, 1.0, 2.0), (None, None, None, 5.0)  # a metric that one step has only
    rows = [
        {"step": step, "grad_norm": norm, "length": length}
        for step, (norm, length) in enumerate(zip(norms, lengths, strict=True), start=1)
    ]
    for step, development_score in ((2, 0.25), (4, 0.75)):  # kept by step, too
        rows[step - 1]["eval/dev"] = development_score
    rows[0]["start/dev"] = 0.125  # before the first step
    write_metrics(folder, "opd", 0, rows)
    publish(folder, tmp_path / "published")
    by_key = {(record.label, record.seed): record.training for record in load_records(tmp_path / "published")}
    curve = {"eval/dev": 0.75, "eval/dev@0": 0.125, "eval/dev@2": 0.25, "eval/dev@4": 0.75}
    assert by_key["opd", 0] == {"grad_norm": 1.5, "length": 5.0, **curve}
    assert by_key["opd", 1] == {}
    publish(tmp_path / "published", tmp_path / "again")
    assert load_records(tmp_path / "again") == load_records(tmp_path / "published")

"""Leaderboards as files: written, kept by content, published, and made by the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.leaderboard import main
from harness.results import publish as publishing
from harness.results.collect import load_records
from harness.results.leaderboard import Leaderboard, build_leaderboard
from harness.results.publish import rebuild_leaderboard
from harness.results.render import write_leaderboard

from .synthetic import run, small_comparison, write_runs

REPOSITORY = Path(__file__).parents[2]


def test_unwritable_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_leaderboard(tmp_path / "file" / "folder", build_leaderboard(small_comparison(), "made"))


def test_large_tables_are_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the cache on, an unchanged folder is not computed again, and one more success in one record is noticed."""
    monkeypatch.setattr(publishing, "CACHE_FROM_PAIRS", 1)
    folder = write_runs(tmp_path / "results" / "runs", small_comparison())
    first = rebuild_leaderboard(folder, "made")
    assert (tmp_path / "results" / ".cache" / "leaderboard").is_dir()

    def refuse(*_: object, **__: object) -> Leaderboard:
        raise RuntimeError("computed anew")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "build_leaderboard", refuse)
        assert rebuild_leaderboard(folder, "made") == first
        write_runs(folder, [run("opd", 0, [4, 3, 2, 1, 1, 2, 3, 1])])
        with pytest.raises(RuntimeError, match="computed anew"):
            rebuild_leaderboard(folder, "made")
    again = rebuild_leaderboard(folder, "made")
    assert again == board_of_folder(folder) and again != first


def test_a_kept_table_runs_nothing_and_is_not_believed_when_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies beside results that others send: JSON with a digest, no pickle."""
    monkeypatch.setattr(publishing, "CACHE_FROM_PAIRS", 1)
    folder = write_runs(tmp_path / "results" / "runs", small_comparison())
    first = rebuild_leaderboard(folder, "made")
    (path,) = (tmp_path / "results" / ".cache" / "leaderboard").iterdir()
    assert path.suffix == ".json"
    whole = path.read_text()
    for damaged in (whole.replace('"engine": "hf"', '"engine": "xx"'), whole[:100], "", "cos\nsystem\n(S'false'\ntR."):
        path.write_text(damaged)
        assert rebuild_leaderboard(folder, "made") == first
        assert path.read_text() == whole


def board_of_folder(folder: Path) -> Leaderboard:
    return build_leaderboard(load_records(folder), "made")


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.leaderboard", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_prints_writes_and_publishes(tmp_path: Path) -> None:
    folder = write_runs(tmp_path / "runs", small_comparison())
    first = command(folder, "--publish", tmp_path / "published")
    assert (first.returncode, first.stderr) == (0, "")
    assert "71.9 [57.1, 83.8]" in first.stdout
    again = command(tmp_path / "published")
    assert (
        again.stdout.split("Made by")[1].split("arithmetic")[1]
        == first.stdout.split("Made by")[1].split("arithmetic")[1]
    )
    assert (folder / "leaderboard.md").exists() and (folder / "leaderboard.json").exists()


def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    folder = write_runs(tmp_path / "runs", small_comparison())
    (folder / "opd/seed0/record.json").write_text('{"schema')
    result = command(folder)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "record.json is not a valid run record" in result.stderr


@pytest.mark.parametrize("arguments", [["absent"], ["absent", "--protocol", "nonsense"], [], ["absent", "--typo"]])
def test_bad_arguments_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1

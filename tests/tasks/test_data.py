"""tasks.data, and the problems that are shipped with the tasks."""

import pytest

from harness.errors import UserError
from tasks.arithmetic.data import load as load_arithmetic
from tasks.data import HubSource, as_splits, benchmark_rows, read_problems


def write(path, *lines: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_rows_are_texts_and_other_columns_are_dropped(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        '{"id": 60, "problem": "p", "answer": "025", "url": "u"}',
        "",
        '{"id": "b", "problem": "é", "answer": 27.0}',
    )
    assert read_problems(path) == [
        {"id": "60", "problem": "p", "answer": "025"},
        {"id": "b", "problem": "é", "answer": "27.0"},
    ]
    assert as_splits(test=read_problems(path))["test"][1]["problem"] == "é"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 2, "problem": "p"', "line 2: "),
        ('["p"]', "line 2: a row must be a JSON object, not list"),
        ('{"id": 2, "problem": "p"}', "line 2: the field 'answer' is missing"),
        (
            '{"id": 2, "problem": "p", "answer": null}',
            "line 2: the field 'answer' must be a text or a number, not None",
        ),
        ('{"id": 2, "problem": "", "answer": 1}', "line 2: the field 'problem' must be a text or a number, not ''"),
        ('{"id": 1, "problem": "p", "answer": 1}', "the id '1' occurs twice"),
    ],
)
def test_a_row_that_is_not_one_is_named(tmp_path, line, message):
    path = write(tmp_path / "a.jsonl", '{"id": 1, "problem": "p", "answer": 1}', line)
    with pytest.raises(UserError, match=message) as error:
        read_problems(path)
    assert str(path) in str(error.value)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_problems(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="holds no problems"):
        read_problems(write(tmp_path / "empty.jsonl", ""))
    with pytest.raises(UserError, match=r"line 1: .*utf-8"):
        (tmp_path / "latin.jsonl").write_bytes(b'{"id": 1, "problem": "\xe9", "answer": 1}')
        read_problems(tmp_path / "latin.jsonl")
    separators = write(tmp_path / "lines.jsonl", '{"id": 1, "problem": "a\u2028b\x85c", "answer": 1}')
    assert read_problems(separators)[0]["problem"] == "a\u2028b\x85c"  # line ends in a text, not in the file


def test_the_folder_comes_from_the_argument_then_from_the_environment_then_from_the_hub(tmp_path, monkeypatch):
    for name in ("given", "variable"):
        write(tmp_path / name / "set" / "test.jsonl", f'{{"id": 1, "problem": "{name}", "answer": 1}}')

    def problem(data_dir: str | None) -> str:
        return benchmark_rows("set", data_dir, HubSource("nobody/nothing", "test"))[0]["problem"]

    monkeypatch.setenv("BENCHMARK_DATA", str(tmp_path / "variable"))
    assert problem(str(tmp_path / "given")) == "given"
    assert problem(None) == "variable"
    monkeypatch.delenv("BENCHMARK_DATA")
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("offline")))
    with pytest.raises(UserError, match=r"nobody/nothing: offline.*evaluation.data_dir.*contains set/test.jsonl"):
        problem(None)


def test_the_arithmetic_problems_are_shipped_and_disjoint():
    splits = load_arithmetic(version=1)
    dev, test = set(splits["dev"]["problem"]), set(splits["test"]["problem"])
    assert len(dev) == len(splits["dev"]) and len(test) == len(splits["test"]) and not dev & test
    assert all(answer in set("0123456789") for answer in [*splits["dev"]["answer"], *splits["test"]["answer"]])

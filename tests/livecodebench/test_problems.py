"""tasks.livecodebench_v6.problems: reading the set, and refusing pickles that hold more than a text."""

from __future__ import annotations

import base64
import json
import pickle
import re
import zlib
from datetime import date

import pytest

from harness.errors import UserError
from tasks.livecodebench_v6.problems import Window, decode_private, load_problems, load_tests, unpickle_text

from .conftest import DATA


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


class Malicious:
    """Unpickled without care it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_the_layout_of_the_set_loads(data_dir: str):
    problems = load_problems(data_dir)
    assert [problem["id"] for problem in problems] == ["syn_a", "syn_b", "syn_c", "syn_1", "syn_2", "syn_3"]
    assert [problem["fn_name"] for problem in problems] == [None, None, None, "add", "srt", "cnt"]
    assert (problems[0]["difficulty"], problems[0]["date"]) == ("easy", "2025-01-11")
    tests = load_tests(problems[0])
    assert (tests.inputs[0], tests.outputs[0], tests.fn_name) == ("3\n1 2 3\n", "6\n", None)  # public first
    assert len(tests.inputs) == 3
    assert load_tests(problems[3]).fn_name == "add"
    shown = json.dumps(problems)
    assert "private" not in shown and tests.inputs[1] not in shown


@pytest.mark.parametrize(
    ("start", "end", "held"),
    [
        (None, None, ["syn_a", "syn_b", "syn_c", "syn_1", "syn_2", "syn_3"]),
        ("2025-02-15", "2025-03-22", ["syn_b", "syn_c", "syn_2"]),  # both days are in it
        (date(2025, 3, 22), None, ["syn_c", "syn_3"]),  # as YAML reads a date
        (None, "2025-01-11", ["syn_a"]),
    ],
)
def test_a_window_of_contest_dates(data_dir: str, start, end, held):
    assert [problem["id"] for problem in load_problems(data_dir, window=Window.of(start, end))] == held


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2025-02", None, "start='2025-02' is not a date such as 2025-02-01"),
        ("2025-03-01", "2025-02-01", "start=2025-03-01 is after end=2025-02-01"),
        ("2026-01-01", None, "no contest is in that window; those of v6 are 2025-01-11 to 2025-04-05"),
    ],
)
def test_a_window_that_holds_nothing_is_refused(data_dir: str, start, end, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load_problems(data_dir, window=Window.of(start, end))


def test_a_problem_without_a_date_is_in_no_window(data_dir: str, tmp_path):
    row = json.loads((DATA / "lcb_format_synthetic.jsonl").read_text().splitlines()[0])
    (tmp_path / "livecodebench_v6").mkdir()
    (tmp_path / "livecodebench_v6" / "test6.jsonl").write_text(json.dumps({**row, "contest_date": ""}) + "\n")
    assert len(load_problems(str(tmp_path))) == 1
    with pytest.raises(UserError, match="contest date '', which is none"):
        load_problems(str(tmp_path), window=Window.of("2025-01-01", None))


def test_a_release_is_all_its_increments(tmp_path):
    """One row to each of the six files; a release that lacks a file is not less than itself."""
    rows = (DATA / "lcb_format_synthetic.jsonl").read_text().splitlines()
    (tmp_path / "livecodebench_v6").mkdir()
    for number, row in enumerate(rows, start=1):
        name = f"test{number if number > 1 else ''}.jsonl"
        (tmp_path / "livecodebench_v6" / name).write_text(row + "\n")
    assert [problem["id"] for problem in load_problems(str(tmp_path), "v1_v6")] == [
        json.loads(r)["question_id"] for r in rows
    ]
    assert [problem["id"] for problem in load_problems(str(tmp_path))] == ["syn_3"]
    (tmp_path / "livecodebench_v6" / "test2.jsonl").unlink()
    with pytest.raises(UserError, match=r"test2\.jsonl does not exist"):
        load_problems(str(tmp_path), "v1_v6")


def test_the_fingerprint_follows_the_tests(data_dir: str, tmp_path):
    before = load_problems(data_dir)
    row = json.loads((DATA / "lcb_format_synthetic.jsonl").read_text().splitlines()[0])
    row["public_test_cases"] = row["public_test_cases"].replace("6", "7")
    (tmp_path / "livecodebench_v6").mkdir()
    (tmp_path / "livecodebench_v6" / "test6.jsonl").write_text("\n" + json.dumps(row) + "\n")
    (after,) = load_problems(str(tmp_path))
    assert after["tests"] != before[0]["tests"]
    assert load_tests(after).outputs[0] == "7\n"
    assert load_tests(before[0]).outputs[0] == "6\n"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_private_tests_are_json_or_a_packed_text(protocol: int):
    cases = [{"input": "1", "output": "é", "testtype": "stdin"}]
    assert decode_private(json.dumps(cases)) == cases
    assert decode_private(packed(pickle.dumps(json.dumps(cases), protocol))) == cases


def test_a_malicious_pickle_is_refused(tmp_path):
    target = tmp_path / "written"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(ValueError, match="refused"):
            decode_private(packed(pickle.dumps(Malicious(target), protocol)))
        with pytest.raises(ValueError, match="refused"):
            unpickle_text(pickle.dumps(["[]", Malicious(target)], protocol))
    for raw in (
        b"cos\nsystem\n(S'touch " + str(target).encode() + b"'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"Pid\n.",
    ):
        with pytest.raises(ValueError, match="refused"):
            unpickle_text(raw)
    assert not target.exists()


@pytest.mark.parametrize("value", [b"[]", ["[]"], {"a": 1}, 5, None, True, ("[]",), bytearray(b"[]")])
def test_anything_but_a_text_is_refused(value):
    with pytest.raises(ValueError, match="refused"):
        unpickle_text(pickle.dumps(value))


@pytest.mark.parametrize(
    "text", ["", "no base64!", "AAAA", base64.b64encode(zlib.compress(b"x")[:-3]).decode(), '{"a": 1}']
)
def test_broken_private_tests_are_a_value_error(text: str):
    with pytest.raises(ValueError):
        decode_private(text)


def test_a_packed_bomb_is_refused(monkeypatch):
    monkeypatch.setattr("tasks.livecodebench_v6.problems._MAX_TESTS_BYTES", 1000)
    with pytest.raises(ValueError, match="too long"):
        decode_private(packed(pickle.dumps("x" * 100_000)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: "),
        ("[]", "line 2: "),
        ('{"question_id": "a"}', "line 2: the column 'question_content' is missing"),
    ],
)
def test_a_row_that_is_not_one_is_named(tmp_path, line: str, message: str):
    (tmp_path / "livecodebench_v6").mkdir()
    first = (DATA / "lcb_format_synthetic.jsonl").read_text().splitlines()[0]
    (tmp_path / "livecodebench_v6" / "test6.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(UserError, match=message):
        load_problems(str(tmp_path))


def test_missing_data_say_what_to_give(tmp_path):
    with pytest.raises(UserError, match=r"livecodebench_v6/test6\.jsonl"):
        load_problems(str(tmp_path))
    with pytest.raises(UserError, match=r"evaluation\.data_dir .*livecodebench_v6/test6\.jsonl"):
        load_problems(None)  # the tests run offline


def test_problems_may_not_share_an_id(tmp_path):
    (tmp_path / "livecodebench_v6").mkdir()
    first = (DATA / "lcb_format_synthetic.jsonl").read_text().splitlines()[0]
    (tmp_path / "livecodebench_v6" / "test6.jsonl").write_text(f"{first}\n{first}\n")
    with pytest.raises(UserError, match="syn_a"):
        load_problems(str(tmp_path))

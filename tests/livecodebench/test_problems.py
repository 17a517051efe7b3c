"""tasks.livecodebench_v6.problems: reading the set, and refusing pickles that hold more than a text."""

from __future__ import annotations

import base64
import json
import pickle
import zlib

import pytest

from harness.errors import UserError
from tasks.livecodebench_v6.problems import decode_private, load_problems, load_tests, unpickle_text

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

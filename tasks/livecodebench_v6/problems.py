"""The problems of a LiveCodeBench release, or those of a window of contest dates, from a local folder or from the Hub.

The tests of a problem may be megabytes and are secret in the sense that nobody should print them, so documents carry a
digest of them instead; the tests themselves are read when a program is graded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import UserError
from harness.files import Line, lines_of, parse_row
from tasks.data import DATA_VARIABLE, check_ids, data_file, data_folder
from tasks.livecodebench_v6.grading import Cases

HUB_ID, HUB_REVISION = "livecodebench/code_generation_lite", "0fe84c3912ea0c4d4a78037083943e8f0c4dd505"
LOCAL_FOLDER = "livecodebench_v6"
_FILES = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl")  # an increment each
RELEASES = {"v6": _FILES[5:], "v1_v6": _FILES}
_COLUMNS = ("question_id", "question_content", "starter_code", "public_test_cases", "private_test_cases", "metadata")
_MAX_TESTS_BYTES = 1 << 30  # unpacked tests of one problem; the largest are some hundred megabytes


@dataclass(frozen=True)
class _Place:
    """Where the row of a problem is."""

    file: Path
    offset: int
    length: int


_places: dict[str, _Place] = {}  # by the digest of the tests: whoever holds a document finds the same tests


@dataclass(frozen=True)
class Window:
    """Contest dates, both included, as the official runner's --start_date and --end_date have them; None: open."""

    start: date | None = None
    end: date | None = None

    @staticmethod
    def of(start: Any, end: Any) -> Window:
        """From YAML or a command line; UserError for what is no date."""
        window = Window(_date("start", start), _date("end", end))
        if window.start and window.end and window.start > window.end:
            raise UserError(f"livecodebench: start={start} is after end={end}.")
        return window

    def has(self, problem: Mapping[str, Any]) -> bool:
        """Whether the problem's contest was in it; UserError for a problem without a date, if that matters."""
        if self == Window():
            return True
        try:
            held = date.fromisoformat(problem["date"])
        except ValueError:
            raise UserError(
                f"livecodebench: problem {problem['id']!r} has the contest date {problem['date']!r}, which is none; "
                "give neither start nor end."
            ) from None
        return (self.start or held) <= held <= (self.end or held)


def _date(name: str, value: Any) -> date | None:
    try:
        return None if value is None else date.fromisoformat(str(value))
    except ValueError:
        raise UserError(f"livecodebench: {name}={value!r} is not a date such as 2025-02-01.") from None


def load_problems(data_dir: str | None, release: str = "v6", window: Window | None = None) -> list[dict[str, Any]]:
    """A row {"id", "question", "starter_code", "fn_name", "difficulty", "date", "tests"} for every problem."""
    if release not in RELEASES:
        raise UserError(f"livecodebench: release must be one of {', '.join(RELEASES)}, not {release!r}.")
    folder = data_folder(data_dir)
    names = RELEASES[release]
    paths = [data_file(folder, f"{LOCAL_FOLDER}/{name}") if folder is not None else _from_hub(name) for name in names]
    problems = [_problem(path, line) for path in paths for line in lines_of(path)]
    if not problems:
        raise UserError(f"{paths[0]} holds no problems.")
    check_ids((problem["id"] for problem in problems), str(paths[-1]))
    chosen = [problem for problem in problems if window is None or window.has(problem)]
    if not chosen:
        days = sorted(problem["date"] for problem in problems)
        raise UserError(f"livecodebench: no contest is in that window; those of {release} are {days[0]} to {days[-1]}.")
    return chosen


def load_tests(problem: Mapping[str, Any]) -> Cases:
    """The tests of a problem that `load_problems` gave: the public ones, then the private ones."""
    place = _places[problem["tests"]]
    with open(place.file, "rb") as file:
        file.seek(place.offset)
        row = json.loads(file.read(place.length))
    try:
        cases = [*json.loads(row["public_test_cases"]), *decode_private(row["private_test_cases"])]
        inputs, outputs = [case["input"] for case in cases], [case["output"] for case in cases]
        return Cases(inputs, outputs, problem["fn_name"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{place.file}: the tests of problem {problem['id']!r} cannot be read ({error}).") from error


def decode_private(text: str) -> list[dict[str, str]]:
    """Private tests are JSON, or JSON in a pickle, compressed, in base 64."""
    try:
        cases = json.loads(text)
    except ValueError:
        cases = json.loads(unpickle_text(_unpacked(text)))
    if not isinstance(cases, list):
        raise ValueError("the private tests are not a list")
    return cases


def _unpacked(text: str) -> bytes:
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), _MAX_TESTS_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"the private tests are neither JSON nor packed ({error})") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("the packed private tests are too long, or cut off")
    return data


class _TextUnpickler(pickle.Unpickler):
    """Unpickles built-in constants only: a pickle that names anything could run it."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it refers to something outside")


def unpickle_text(data: bytes) -> str:
    """The text in a pickle. Anything but a text, whatever else it may be, is refused as a ValueError."""
    try:
        text = _TextUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # a broken pickle raises nearly anything
        raise ValueError(f"the pickle of the private tests is refused: {error}") from error
    if type(text) is not str:
        raise ValueError(f"the pickle of the private tests is refused: it holds {type(text).__name__}, not a text")
    return text


def _problem(path: Path, line: Line) -> dict[str, Any]:
    try:
        row = parse_row(line.content)
        if missing := [column for column in _COLUMNS if not isinstance(row[column], str)]:
            raise ValueError(f"the column {missing[0]!r} must be a text")
        fn_name = json.loads(row["metadata"] or "{}").get("func_name")
    except KeyError as error:
        raise UserError(f"{path}, line {line.number}: the column {error} is missing.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}, line {line.number}: {error}.") from error
    tests = json.dumps([row["public_test_cases"], row["private_test_cases"], fn_name])
    digest = hashlib.sha256(tests.encode()).hexdigest()
    _places[digest] = _Place(path, line.offset, len(line.content))
    return {
        "id": row["question_id"],
        "question": row["question_content"],
        "starter_code": row["starter_code"],
        "fn_name": fn_name,
        "difficulty": row.get("difficulty", ""),
        "date": str(row.get("contest_date", ""))[:10],
        "tests": digest,
    }


def _from_hub(name: str) -> Path:
    """The file itself: the data set's loading script is refused by current versions of `datasets`."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB_ID, name, repo_type="dataset", revision=HUB_REVISION))
    except (OSError, ValueError) as error:  # no network, no access, or not in the cache
        raise UserError(
            f"The data of LiveCodeBench cannot be loaded from the Hub ({HUB_ID}, {name}: "
            f"{' '.join(str(error).split())[:200]}); give evaluation.data_dir (or ${DATA_VARIABLE}), a folder that "
            f"contains {LOCAL_FOLDER}/{name}."
        ) from error

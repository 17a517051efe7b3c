"""tasks.livecodebench_v6.grading: rows, modes, and programs that cheat."""

from __future__ import annotations

import textwrap

import pytest

from harness.sandbox import Sandbox
from harness.sandbox.packages import MODULES
from tasks.livecodebench_v6.extraction import as_file, extract_code
from tasks.livecodebench_v6.grading import grade_row

SUM = "n = int(input())\nprint(sum(map(int, input().split())))"
INPUTS, OUTPUTS = ["3\n1 2 3\n", "2\n40 2\n"], ["6\n", "42\n"]
ROW = {"inputs": INPUTS, "outputs": OUTPUTS, "fn_name": None, "timeout_s": 2}
FUNCTION_ROW = {"inputs": ["1\n2", "5\n6"], "outputs": ["3", "11"], "fn_name": "add", "timeout_s": 2}
BOTH_MODES = pytest.mark.parametrize("mode", ["official", "clean"])

# None of these solves the problem. {channel} is where a runner writes its messages.
_FORGE = "import os\nfor n in range(3, 64):\n    try: os.write(n, {message!r})\n    except OSError: pass\n"
_ARRAY = b'{"value": "{\\"array\\": [\\"<U999999999999\\", [1]]}"}\n'
CHEATS = {
    "claims_the_end": _FORGE.format(message=b'{"end": true}\n') + "os._exit(0)",
    "claims_results": _FORGE.format(message=b'{"results": [true, true]}\n{"end": true}\n') + "os._exit(0)",
    "too_many_messages": _FORGE.format(message=b'{"output": "6"}\n' * 9 + b'{"end": true}\n') + "os._exit(0)",
    "nonsense_messages": _FORGE.format(message=b"\xff{[\n") + "os._exit(0)",
    "deep_message": _FORGE.format(message=b"[" * 100_000 + b"\n") + "os._exit(0)",
    "endless_message": "import os\nwhile True:\n    for n in range(3, 9):\n        try: os.write(n, b'x' * 65536)\n"
    "        except OSError: pass",
    "looks_for_the_answer": "import gc\nfound = [o for o in gc.get_objects() if isinstance(o, dict) and 'outputs' in o]\n"
    "print(found[0]['outputs'][0] if found else 'nothing')",
    "reads_its_box": "import os\nbox = '/box'\nprint(*(open(f'{box}/{n}').read() for n in os.listdir(box) if 'output' in n))",
    "equals_everything": "class Any:\n    def __eq__(self, other): return True\n    __str__ = __repr__ = lambda self: 'x'\nprint(Any())",
    "patches_the_comparison": "import decimal, builtins\ndecimal.Decimal.__eq__ = lambda *a: True\nbuiltins.str = lambda x: '6'",
    "ends_in_peace": "import sys\nsys.exit(0)",
    "ends_at_once": "import os\nos._exit(0)",
    "kills_its_runner": "import os, signal, ctypes\nctypes.CDLL(None).kill(os.getppid(), 9)\nctypes.CDLL(None).kill(-1, 9)",
    "closes_everything": "import os\nos.closerange(0, 64)\nprint(6)",
    "prints_no_end": "while True: print('x' * 1000)",
    "huge_output": "print('\\0' * (40 << 20))",
    "allocates": "x = bytearray(10 << 30)\nprint(6)",
    "hangs": "import time\ntime.sleep(60)",
    "stops": "import os, signal, ctypes\nctypes.CDLL(None).kill(os.getpid(), int(signal.SIGSEGV))",
}
FUNCTION_CHEATS = {
    "equals_everything": "class Any:\n    def __eq__(self, other): return True\nclass Solution:\n    def add(self, a, b): return Any()",
    "equal_list": "class L(list):\n    def __eq__(self, other): return True\nclass Solution:\n    def add(self, a, b): return L()",
    "equal_int": "class I(int):\n    def __eq__(self, other): return True\nclass Solution:\n    def add(self, a, b): return I(0)",
    "looks_for_the_answer": "import sys\nclass Solution:\n    def add(self, a, b):\n        f = sys._getframe()\n"
    "        while f:\n            for v in f.f_locals.values():\n                if isinstance(v, dict) and "
    "'outputs' in v: return 3\n"
    "            f = f.f_back\n        return 0",
    "has_no_such_method": "class Solution:\n    def sub(self, a, b): return a - b",
    "forges_an_array": "import os\n" + _FORGE.format(message=_ARRAY) + "os._exit(0)",
}


@BOTH_MODES
def test_a_response_is_graded_by_its_last_program(mode: str, sandbox: Sandbox):
    response = f"First try:\n```python\nprint(0)\n```\nBetter:\n```python\n{SUM}\n```\nDone."
    grade = grade_row({**ROW, "response": response}, mode, sandbox)
    assert grade == {
        "results": [True, True],
        "passed": True,
        "extracted": SUM,
        "reason": "passed",
        "mode": mode,
        "sandbox": sandbox.name,
    }
    thinking = f"<think>\n```python\n{SUM}\n```\n"
    assert grade_row({**ROW, "response": thinking}, mode, sandbox)["reason"] == "unfinished_thinking"
    assert grade_row({**ROW, "response": thinking + "</think>None."}, mode, sandbox)["reason"] == "no_code"
    assert grade_row({**ROW, "response": thinking + f"</think>```\n{SUM}\n```"}, mode, sandbox)["passed"]
    assert grade_row({**ROW, "response": "no fences"}, mode, sandbox)["results"] == [-4]


@BOTH_MODES
def test_reasons(mode: str, sandbox: Sandbox):
    programs = [SUM, "print(6)", "raise ValueError", "import time\ntime.sleep(20)"]
    grades = sandbox.map(lambda code: grade_row({**ROW, "code": code, "timeout_s": 1}, mode, sandbox), programs, 2)
    assert [grade["results"] for grade in grades] == [[True, True], [True, -2], [-4], [-3]]
    assert [grade["reason"] for grade in grades] == ["passed", "wrong_answer", "runtime_error", "time_limit"]


@BOTH_MODES
def test_programs_that_cheat_fail_and_disturb_nobody(mode: str, sandbox: Sandbox):
    rows = [{**ROW, "code": code} for cheat in CHEATS.values() for code in (cheat, SUM)]
    rows += [{**FUNCTION_ROW, "code": code} for code in FUNCTION_CHEATS.values()]
    grades = sandbox.map(lambda row: grade_row({**row, "timeout_s": 1}, mode, sandbox), rows, 2)
    ends = 2 * len(CHEATS)
    names = [*CHEATS, *(f"function_{name}" for name in FUNCTION_CHEATS)]
    cheats = dict(zip(names, [*grades[:ends:2], *grades[ends:]], strict=True))
    assert not [name for name, grade in cheats.items() if grade["passed"]]
    assert [grade["results"] for grade in grades[1:ends:2]] == [[True, True]] * len(CHEATS)


@BOTH_MODES
def test_a_limit_of_ours_holds_where_the_alarm_is_off(mode: str, sandbox: Sandbox):
    """Upstream passes these. A limit of 1 s and 2.5 s of grace: 4.5 s of work, in a test or in
    loading, are too much.
    """
    work = "import signal, time\nsignal.alarm(0)\nuntil = time.time() + {}\nwhile time.time() < until: pass\n"
    row = {"inputs": ["1"], "outputs": ["6"], "fn_name": None, "timeout_s": 1}
    late = grade_row({**row, "code": work.format(4.5) + "print(6)"}, mode, sandbox)
    assert late["results"] == ([-1] if mode == "official" else [-3])
    loading = {**row, "fn_name": "f", "code": work.format(8) + "def f(x): return 6"}
    assert not grade_row(loading, mode, sandbox)["passed"]
    if mode == "official":  # within the grace it is upstream's verdict
        assert grade_row({**row, "code": work.format(2) + "print(6)"}, mode, sandbox)["passed"]


@BOTH_MODES
def test_asyncio_works_without_sockets(mode: str, sandbox: Sandbox):
    code = (
        "import asyncio\nasync def one(n):\n    await asyncio.sleep(0.01)\n    return n\n"
        "async def main():\n    loop = asyncio.get_running_loop()\n"
        "    print(sum(await asyncio.gather(*map(one, range(4)))) if await loop.run_in_executor(None, int, '6') else "
        "0)\n"
        "asyncio.run(main())"
    )
    row = {"code": code, "inputs": ["1"], "outputs": ["6"], "fn_name": None, "timeout_s": 5}
    assert grade_row(row, mode, sandbox)["passed"]


@BOTH_MODES
def test_the_declared_packages_can_be_imported(mode: str, sandbox: Sandbox):
    code = "\n".join(f"import {module}" for module in MODULES) + "\nprint(pandas.DataFrame({'a': [1, 2, 3]}).a.sum())"
    row = {"code": code, "inputs": [""], "outputs": ["6"], "fn_name": None, "timeout_s": 20}
    assert grade_row(row, mode, sandbox)["passed"]


def test_rounding_is_forgiven_in_clean_mode_only(sandbox: Sandbox):
    rows = [
        {"code": "print(0.1 + 0.2 + 1e-8)", "inputs": [""], "outputs": ["0.3"], "fn_name": None},
        {"code": "def f(x): return [x + 0.2, 1]", "inputs": ["0.1"], "outputs": ["[0.3, 1]"], "fn_name": "f"},
    ]
    assert [grade_row(row, "official", sandbox)["results"] for row in rows] == [[-2], [False]]
    assert all(grade_row(row, "clean", sandbox)["passed"] for row in rows)


@BOTH_MODES
def test_tests_of_one_program_share_no_state_in_clean_mode(mode: str, sandbox: Sandbox):
    counter = (
        "class Solution:\n    n = 0\n    def add(self, a, b):\n        Solution.n += 1\n        return a + b if "
        "Solution.n == 1 else 0"
    )
    grade = grade_row({**FUNCTION_ROW, "code": counter}, mode, sandbox)
    assert grade["results"] == ([True, True] if mode == "clean" else [True, False])


def test_input_and_output_of_megabytes(sandbox: Sandbox):
    numbers = " ".join(map(str, range(400_000)))
    row = {"code": "print(input())", "inputs": [numbers], "outputs": [numbers], "fn_name": None}
    for mode in ("official", "clean"):
        assert grade_row(row, mode, sandbox)["passed"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": "1"}, "inputs must be a list of texts"),
        ({"outputs": [1, 2]}, "outputs must be a list of texts"),
        ({"outputs": ["1"]}, "there are 2 inputs and 1 outputs"),
        ({"inputs": [], "outputs": []}, "there are no tests"),
        ({"code": None}, 'a row needs "code" or "response"'),
        ({"code": 5}, "code must be a text"),
        ({"fn_name": 5}, "fn_name must be a text"),
        ({"timeout_s": 0.5}, "timeout_s must be a whole number of seconds"),
    ],
)
def test_a_row_that_is_not_one_is_a_value_error(change, message: str, sandbox: Sandbox):
    with pytest.raises(ValueError, match=message):
        grade_row({**ROW, "code": SUM, **change}, "official", sandbox)


@BOTH_MODES
@pytest.mark.parametrize(
    "response",
    [
        f"```python\n\ufeff{SUM}\n```",
        "1. In a list:\n\n   ```python\n" + textwrap.indent(SUM, "   ") + "\n   ```",
        "\t```\n\n" + textwrap.indent(SUM, "\t") + "\n\t```",
    ],
)
def test_clean_mode_runs_what_the_author_would_have_saved(mode: str, response: str, sandbox: Sandbox):
    """The official runner stumbles over a byte order mark, and over the indentation of a list item."""
    assert grade_row({**ROW, "response": response}, mode, sandbox)["passed"] == (mode == "clean")


def test_a_program_that_is_not_indented_is_left_as_it_is():
    code = 'a = """\n   \n  b"""'  # blanks in a text count
    assert as_file(code) == code
    assert as_file('  a = """\nb"""') == '  a = """\nb"""'  # nothing that all lines share: Python will say so
    assert as_file("") == ""


def test_a_time_limit_of_null_is_the_default(sandbox: Sandbox):
    assert grade_row({**ROW, "code": SUM, "timeout_s": None}, "official", sandbox)["passed"]


def test_an_unknown_mode_is_a_value_error(sandbox: Sandbox):
    with pytest.raises(ValueError, match="official, clean"):
        grade_row({**ROW, "code": SUM}, "strict", sandbox)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\na\n```", "a"),
        ("x ```python\na\nb\n``` y", "a\nb"),
        ("```\na\n```\n```\nb\n```", "b"),
        ("```\na\n```\n```\nb", ""),  # between the last two fences, whatever they are
        ("```\n```", ""),
        ("one ``` fence", None),
        ("", None),
    ],
)
def test_extraction(text: str, code: str | None):
    assert extract_code(text) == code

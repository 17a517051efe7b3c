"""harness.grade: rows in, rows out, with the same graders as the tasks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.grade import main

DATA = Path(__file__).parent / "data"
PARITY, BENCHMARKS = os.environ.get("PARITY_DATA"), os.environ.get("BENCHMARK_DATA")


def write(path: Path, *rows) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def grade(task: str, source: Path, target: Path, *options: str) -> int:
    return main([f"task={task}", f"input={source}", f"output={target}", *options])


def test_math_rows_keep_their_fields_and_their_order(tmp_path, capsys):
    cases = [json.loads(line) for line in (DATA / "math_parity.jsonl").read_text().splitlines()]
    rows = [{"id": case["id"], "response": case["prediction"], "answer": case["gold"]} for case in cases]
    assert grade("math", write(tmp_path / "in.jsonl", *rows), tmp_path / "out.jsonl") == 0
    out = read(tmp_path / "out.jsonl")
    assert [{key: row[key] for key in ("id", "response", "answer")} for row in out] == rows
    assert [row["correct"] for row in out] == [case["verdict"] for case in cases]
    assert set(out[0]) == {"id", "response", "answer", "correct", "extracted", "reason"}
    assert capsys.readouterr().out.startswith("71 of 71 rows graded")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_gpqa_rows(tmp_path):
    rows = [{"response": "Answer: B", "answer": "B"}, {"response": "<think>Answer: B", "answer": "(b)"}]
    assert grade("gpqa", write(tmp_path / "in.jsonl", *rows), tmp_path / "out.jsonl") == 0
    assert [(row["correct"], row["extracted"], row["reason"]) for row in read(tmp_path / "out.jsonl")] == [
        (True, "B", "equal"),
        (False, None, "unfinished_thinking"),
    ]


def test_ifbench_rows(tmp_path):
    folder = BENCHMARKS or str(DATA)
    rows = read(DATA / "ifbench_rows.jsonl")
    plain = [{key: row[key] for key in row if key not in ("strict", "loose")} for row in rows]
    source = write(tmp_path / "in.jsonl", *plain)
    assert grade("ifbench", source, tmp_path / "out.jsonl", f"data_dir={folder}") == 0
    assert read(tmp_path / "out.jsonl") == rows


@pytest.mark.skipif(PARITY is None or BENCHMARKS is None, reason="PARITY_DATA and BENCHMARK_DATA do not name folders")
@pytest.mark.parametrize("name", ["ifbench_parity.jsonl", "ifbench_parity_sample_output.jsonl"])
def test_the_official_rows_of_ifbench(tmp_path, name):
    rows = read(Path(str(PARITY)) / name)
    plain = [{key: row[key] for key in row if key not in ("strict", "loose")} for row in rows]
    assert grade("ifbench", write(tmp_path / "in.jsonl", *plain), tmp_path / "out.jsonl") == 0
    out = read(tmp_path / "out.jsonl")
    assert [(row["strict"], row["loose"]) for row in out] == [(row["strict"], row["loose"]) for row in rows]


def test_bad_rows_are_named_and_the_rest_is_graded(tmp_path, capsys):
    source = write(
        tmp_path / "in.jsonl",
        {"response": r"\boxed{1}", "answer": 1},
        "{not json",
        "",
        ["a"],
        {"response": r"\boxed{1}"},
        {"response": None, "answer": "1", "id": 7},
        {"response": "a\u2028b \ud800 é \\boxed{1.0}", "answer": 1.0},
        "[" * 100_000,
        '{"response": "1", "answer": NaN}',
        {"response": ["x" * 1000] * 1000, "answer": "1"},
    )
    assert grade("math", source, tmp_path / "out.jsonl") == 1  # a script sees that rows have no verdict
    out = read(tmp_path / "out.jsonl")
    assert [row.get("correct") for row in out] == [True, None, None, None, None, True, None, None, None]
    assert out[1]["line"] == 2 and out[2] == {"line": 4, "error": "a row must be a JSON object, not list"}
    assert out[4] == {
        "response": None,
        "answer": "1",
        "id": 7,
        "error": "the field 'response' must be a text, not None",
    }
    assert out[5]["response"] == "a\u2028b \ud800 é \\boxed{1.0}"
    printed = capsys.readouterr()
    assert f"{source}, line 5: the field 'answer' is missing" in printed.err and "line 8: not valid JSON" in printed.err
    assert "2 of 9 rows graded, 7 could not be" in printed.out
    assert "line 9: the field 'answer' must be a finite number" in printed.err
    assert len(printed.err.splitlines()[-1]) < 500  # a row may be huge, its sentence is not


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=chess"], "task='chess' cannot be graded; known: gpqa, ifbench, livecodebench, math"),
        (["task=math", "mode=clean"], "task=math has no option 'mode'; it takes task, input, output"),
        (["task=math", "task=gpqa"], "'task' is given twice"),
        (["task=math", "clean"], "'clean' is not an option of the form name=value"),
        ([], "the option task=... is missing"),
        (["task=math", "output=/nowhere/at/all.jsonl"], "the folder /nowhere/at does not exist"),
        (["task=math", "input=/nowhere.jsonl"], "input=/nowhere.jsonl cannot be read"),
        (["task=math", "input=/"], "input=/ is not a regular file"),
        (["task=math", "output=/"], "output=/ is not a regular file"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, capsys, arguments, message):
    source = write(tmp_path / "in.jsonl", {"response": "1", "answer": "1"})
    given = " ".join(arguments)
    defaults = [
        f"{key}={value}" for key, value in (("input", source), ("output", tmp_path / "o")) if f"{key}=" not in given
    ]
    assert main([*arguments, *defaults]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "o").exists()


def test_a_file_of_which_nothing_can_be_graded_is_bad_input(tmp_path, capsys):
    assert grade("math", write(tmp_path / "empty.jsonl", ""), tmp_path / "out.jsonl") == 2
    assert "holds no rows" in capsys.readouterr().err and not (tmp_path / "out.jsonl").exists()
    assert grade("gpqa", write(tmp_path / "in.jsonl", {"answer": "A"}), tmp_path / "out.jsonl") == 2
    assert "no row of" in capsys.readouterr().err


def test_pipes_are_neither_read_in_part_nor_replaced(tmp_path, capsys):
    """A pipe stands for all that is no file: onto a device, such as /dev/null, the result must not
    be renamed either.
    """
    pipe, source = tmp_path / "pipe", write(tmp_path / "in.jsonl", {"response": "1", "answer": "1"})
    os.mkfifo(pipe)
    assert grade("math", source, pipe) == grade("math", pipe, tmp_path / "out.jsonl") == 2
    assert capsys.readouterr().err.count("is not a regular file") == 2
    assert pipe.is_fifo() and not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("place", ["link", "hanging", "/dev/stdout"])
def test_a_link_is_not_replaced(tmp_path, capsys, place):
    """The result is renamed onto its name: a link would be gone, and /dev/stdout with it for everybody."""
    source, aim = write(tmp_path / "in.jsonl", {"response": "1", "answer": "1"}), tmp_path / "aim.jsonl"
    (tmp_path / "link").symlink_to(write(aim, {"kept": True}))
    (tmp_path / "hanging").symlink_to(tmp_path / "nothing")
    assert grade("math", source, tmp_path / place) == 2
    assert "is a link (to " in capsys.readouterr().err
    assert (tmp_path / place).is_symlink() and read(aim) == [{"kept": True}]


@pytest.mark.parametrize("name", ["in.jsonl", "./sub/../in.jsonl", "twin.jsonl"])
def test_the_input_is_not_overwritten(tmp_path, capsys, name):
    source = write(tmp_path / "in.jsonl", {"response": "1", "answer": "1"})
    (tmp_path / "sub").mkdir()
    os.link(source, tmp_path / "twin.jsonl")
    assert grade("math", source, tmp_path / name) == 2
    assert "is the input; give it another name" in capsys.readouterr().err
    assert read(source) == [{"response": "1", "answer": "1"}]


@pytest.mark.parametrize(
    ("task", "row"),
    [
        # as the set has its answers
        ("gsm8k", {"response": "She makes $18 every day.", "answer": "9 * 2 = <<9*2=18>>18\n#### 18"}),
        ("gsm8k", {"response": r"\boxed{18}", "answer": 18}),
        ("aime24", {"response": r"\boxed{25}", "answer": "025"}),
        ("gpqa_diamond", {"response": "Answer: B", "answer": "B"}),
        ("mmlu_redux_all", {"response": "Answer: B", "answer": "B"}),
    ],
)
def test_a_benchmarks_name_stands_for_its_kind(tmp_path, task, row):
    assert grade(task, write(tmp_path / "in.jsonl", row), tmp_path / "out.jsonl") == 0
    assert read(tmp_path / "out.jsonl")[0]["correct"] is True


def test_a_task_that_no_rows_are_graded_as_is_refused(tmp_path, capsys):
    """Generated arithmetic has a grader of its own."""
    source = write(tmp_path / "in.jsonl", {"response": "1", "answer": "1"})
    assert grade("arithmetic", source, tmp_path / "out.jsonl") == 2
    assert "task='arithmetic' cannot be graded; known: gpqa, " in capsys.readouterr().err


INTERRUPTED = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored

class Interrupt:
    def find_spec(self, name, *_):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)

moment = sys.argv.pop(1)
sys.argv[0], sys.orig_argv = "-m", [sys.executable, "-m", "harness.grade"]  # as Python has them while it looks for it
sys.meta_path.insert(0, Interrupt())
runpy.run_module("harness.grade", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("moment", ["harness.errors", "harness.evaluation", "tasks.row_graders.math"])
def test_an_interrupt_is_one_line_and_exit_code_130(tmp_path, moment):
    """Also one that comes while the command is still being imported, which is when `moment` is."""
    source = write(tmp_path / "in.jsonl", {"response": "1", "answer": "1"})
    options = ["task=math", f"input={source}", f"output={tmp_path / 'out.jsonl'}"]
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, moment, *options], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.startswith("interrupted") and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_an_interrupted_grading_leaves_no_half_file(tmp_path, monkeypatch):
    def stumble(row):
        if row["n"] == 3:
            raise UserError("the sandbox is gone")
        return {}

    import tasks.row_graders.math as module

    monkeypatch.setattr(module, "make_grader", lambda options: stumble)
    source = write(tmp_path / "in.jsonl", *({"n": n} for n in range(6)))
    (tmp_path / "out.jsonl").write_text("before\n")
    assert grade("math", source, tmp_path / "out.jsonl") == 2
    assert (tmp_path / "out.jsonl").read_text() == "before\n" and len(list(tmp_path.iterdir())) == 2


def test_rows_are_graded_at_the_same_time_and_come_out_in_order(tmp_path, monkeypatch):
    import threading

    import tasks.row_graders.math as module

    together = threading.Barrier(3, timeout=30)

    def wait(row):
        together.wait()
        return {"double": 2 * row["n"]}

    monkeypatch.setattr(module, "make_grader", lambda options: wait)
    monkeypatch.setattr(module, "WORKERS", 3, raising=False)
    assert grade("math", write(tmp_path / "in.jsonl", *({"n": n} for n in range(30))), tmp_path / "out.jsonl") == 0
    assert read(tmp_path / "out.jsonl") == [{"n": n, "double": 2 * n} for n in range(30)]


def test_the_command(tmp_path):
    source = write(tmp_path / "in.jsonl", {"response": r"\boxed{\frac{1}{2}}", "answer": "0.5"})
    command = [sys.executable, "-m", "harness.grade"]
    done = subprocess.run(
        [*command, "task=math", f"input={source}", f"output={tmp_path / 'out.jsonl'}"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "" and read(tmp_path / "out.jsonl")[0]["correct"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "task=livecodebench [mode=official]" in shown.stdout


def test_the_official_graders_are_a_mode(tmp_path):
    """math-verify credits an unfinished thought; simple-evals takes the first label. A third mode is refused."""
    rows = {
        "math": {"response": r"<think>\boxed{25}", "answer": "25"},
        "gpqa": {"response": "Answer: A\n\nAnswer: B", "answer": "A"},
    }
    for task, row in rows.items():
        source, target = write(tmp_path / f"{task}.jsonl", row), tmp_path / f"{task}-graded.jsonl"
        for options, correct in (([], False), (["grader=strict"], False), (["grader=official"], True)):
            assert main([f"task={task}", f"input={source}", f"output={target}", *options]) == 0
            assert read(target)[0]["correct"] is correct
        assert main([f"task={task}", f"input={source}", f"output={target}", "grader=kind"]) == 2

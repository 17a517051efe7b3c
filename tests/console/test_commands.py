"""The doors: one list of commands, help and refusals without heavy imports, one way to end for all of them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.__main__ import COMMANDS, main, sentence_of
from harness.console.commands import Parser, complain_once, exit_code_of, stop_if_interrupted
from harness.errors import UserError
from harness.files import ROOT

HEAVY = {
    "torch",
    "transformers",
    "lm_eval",
    "scipy",
    "matplotlib",
    "datasets",
    "joblib",
    "pandas",
    "vllm",
    "accelerate",
}
MISTYPED = {  # what a person gets wrong, and what the answer names
    "run": (["method=opd", "sttting=tiny_cpu"], "sttting"),
    "leaderboard": (["results", "--pubish", "x"], "--pubish"),
    "report": (["results", "--ouput", "x"], "--ouput"),
    "compare": (["a", "--baselin", "b"], "--baselin"),
    "evaluate": (["chckpoint=x"], "chckpoint"),
    "grade": (["tsk=math"], "task="),
    "diagnose": (["sttting=tiny_cpu"], "sttting"),
    "plan": (["hardware=h100_x8", "sttting=tiny_cpu"], "sttting"),
    "prepare": (["sorce=x"], "sorce"),
    "tune": (["sttting=tiny_cpu"], "sttting"),
    "own_rates": (["a", "b", "--tsk=x"], "--tsk"),
    "regime_map": (["a", "--tsk=x"], "--tsk"),
    "findings": (["a", "b", "--tsk=x"], "--tsk"),
    "methods": (["opd"], "opd"),
    "tiny": (["--models", "studnet"], "studnet"),
}
# `python -X importtime` would tell the same of a command; this says it in one line at the end of stderr
PROGRAM = """
import sys
from harness.__main__ import main
code = main(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def ended(*arguments: str, program: str = PROGRAM) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """A command in a process of its own, and the packages that it had imported when it ended."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True)
    *lines, packages = done.stderr.splitlines()
    done.stderr = "\n".join(lines)
    return done, set(packages.split())


def test_a_full_disk_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """Said once, no traceback."""

    def command() -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    complain_once.cache_clear()
    assert [exit_code_of(command) for _ in range(2)] == [2, 2]
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: there is no room left on the disk of")


def test_every_door_is_listed() -> None:
    doors = [path for path in (ROOT / "harness").glob("*.py") if "\ndef main(" in path.read_text(encoding="utf-8")]
    doors += (ROOT / "harness").glob("*/__main__.py")
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in doors}
    assert names - {"harness.__main__"} == set(COMMANDS.values())
    assert set(MISTYPED) == set(COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_the_list(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    shown = dict(re.findall(r"^  (\w+) +(\S.*)$", capsys.readouterr().out, flags=re.MULTILINE))
    assert list(shown) == list(COMMANDS)
    assert shown["leaderboard"] == "rebuilds and prints the table of a comparison."
    for module in COMMANDS.values():
        assert re.fullmatch(r".{20,150}[.]", sentence_of(module)), module


def test_the_installed_command_is_this_one() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.scripts]\nopd = "harness.__main__:main"\n' in text


@pytest.mark.parametrize(("name", "meant"), [("leaderbord", "leaderboard"), ("regime-map", "regime_map")])
def test_an_unknown_command_is_answered(name: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: there is no command {name!r}; did you mean {meant}?") and error.count("\n") == 1
    assert main(["xyzzy"]) == 2
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    done, packages = ended(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m harness.{name}" in done.stdout
    assert not packages & HEAVY


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_mistyped_is_one_sentence_and_imports_nothing_heavy(name: str) -> None:
    arguments, word = MISTYPED[name]
    done, packages = ended(name, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and "\n" not in done.stderr and word in done.stderr
    assert not packages & HEAVY


def test_a_heavy_import_would_be_seen() -> None:
    _, packages = ended("--help", program=PROGRAM.replace("import sys\n", "import sys, scipy\n", 1))
    assert "scipy" in packages


@pytest.mark.parametrize("name", COMMANDS)
def test_the_module_is_the_command(name: str) -> None:
    """`python -m harness.<name>` as before, and its answers go through the one door."""
    arguments, word = MISTYPED[name]
    done = subprocess.run(
        [sys.executable, "-m", f"harness.{name}", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and word in done.stderr


def test_errors_have_one_home() -> None:
    """No door has a copy of it: none writes `error: …` itself, none names the exit code."""
    for module in COMMANDS.values():
        text = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert "exit_code_of(" in text, module
        assert not re.search(r"""["'][Ee]rror: |return 2\b|exit\(2\)|argparse\.ArgumentParser""", text), module


def raises(error: BaseException):
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("a=1: must be 2."), 2, "error: a=1: must be 2.\n"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to go on from here.\n"),
        (SystemExit(0), 0, ""),
        (SystemExit(None), 0, ""),
        (SystemExit(3), 3, ""),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_how_a_command_ends(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(raises(error)) == code
    assert capsys.readouterr().err == said


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code_of(raises(ZeroDivisionError()))


def test_a_parser_says_what_is_wrong_in_one_sentence() -> None:
    with pytest.raises(UserError, match=r"unrecognized arguments: --b; see python -m harness\.x --help\."):
        Parser("x", "Text.").parse_args(["--b"])


CUT = (
    "from harness.console.commands import exit_code_of\nimport sys\ndef command():\n    {}\n    return "
    "0\nsys.exit(exit_code_of(command))"
)


@pytest.mark.parametrize(
    "body",
    ["print('x')", "print('x' * 10**6)", "import argparse; argparse.ArgumentParser().parse_args(['--help'])"],
    ids=["within the buffer", "more than the buffer", "help"],
)
def test_output_that_nobody_reads_ends_quietly(body: str) -> None:
    """The reader is gone before anything is written, so that it is no race."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", CUT.format(body)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": ""},  # as in a terminal; unbuffered, argparse itself passes over it
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_head_cuts_a_command_off() -> None:
    done = subprocess.run(
        f"{sys.executable} -m harness.run --help | head -1", shell=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.startswith("`python -m harness.run") and done.stderr == ""


def test_another_broken_pipe_is_not_hidden() -> None:
    """One of the command's own, to a server or a worker, while the output is still read."""
    done = subprocess.run(
        [sys.executable, "-c", CUT.format("raise BrokenPipeError('of a worker')")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "BrokenPipeError: of a worker" in done.stderr


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("run.py", "a command is started by its name: python -m harness.run method=opd 'a b'"),
        ("leaderboard.py", "a command is started by its name: python -m harness.leaderboard method=opd 'a b'"),
        ("report/__main__.py", "a command is started by its name: python -m harness.report method=opd 'a b'"),
        ("results/printing.py", "printing.py is a part of the harness and no command; python -m harness lists the"),
    ],
)
def test_a_file_that_is_started_by_its_path_says_how_it_is_done(file: str, sentence: str) -> None:
    """There the folder harness/ is on the path, and harness/types.py hides the module of the standard library."""
    done = subprocess.run(
        [sys.executable, f"harness/{file}", "method=opd", "a b"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {sentence}") and done.stderr.count("\n") == 1


def test_a_helper_module_is_no_command() -> None:
    done = subprocess.run([sys.executable, "-m", "harness.results.printing"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: harness.results.printing is a part of the harness and no command; ")


def test_an_older_python_is_one_sentence() -> None:
    """Said before anything is imported that it could not read."""
    program = "import sys; sys.version_info = (3, 10, 12); sys.version = '3.10.12 (main)'; import harness"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: the harness needs Python 3.11 or newer, and this is 3.10.12.\n"


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored
class Interrupt:
    def find_spec(self, name, *_):
        if name == "harness.errors":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupt_during_the_imports_is_one_line(name: str, tmp_path: Path) -> None:
    """Every command imports harness.errors before it has parsed its arguments."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", f"harness.{name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert (done.returncode, done.stderr) == (130, "interrupted; run the same command again to go on from here.\n")


def test_an_interrupt_that_a_library_catches_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    """An `except` around an optional import may take it; the command stops where it looks next."""

    def command() -> int:
        with contextlib.suppress(BaseException):  # the library
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        stop_if_interrupted()
        return 0

    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        assert exit_code_of(command) == 130
        assert exit_code_of(lambda: 0) == 0  # the next command knows nothing of it
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "interrupted; run the same command again to go on from here.\n"


def test_an_option_is_written_either_way() -> None:
    """`output=FILE` and `--output FILE` are the same in every command; what is no option stays what it is."""
    parser = Parser("x", "Text.")
    parser.add_argument("folder")
    parser.add_argument("--output")
    for given in (["a=b", "output=f"], ["a=b", "--output", "f"], ["a=b", "--output=f"]):
        assert vars(parser.parse_args(given)) == {"folder": "a=b", "output": "f"}

"""Runs a program on a problem's tests as LiveCodeBench's own runner does, quirks included. Runs inside the sandbox.

The quirks, which decide verdicts: a stdin program becomes the body of a function, with its imports before it; input
comes from stand-ins for sys.stdin, not from descriptor 0; a SIGALRM ends a test, and only once; a good part of `os` is
taken away; whatever kills this process fails all tests. Written from the observed semantics.

What the program prints or returns is sent to the host, which knows what is expected and stops at the first failure.
"""

import ast
import builtins
import contextlib
import faulthandler
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

sys.path.append(os.path.dirname(os.path.abspath(__file__)))
import portable
from common import CRASHED, MAX_INT_DIGITS, PRELUDE, TIMED_OUT, Send, load_job, open_channel, serve_asyncio

sys.path.pop()

TAKEN_FROM_OS = (
    "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames truncate replace "
    "unlink fchmod fchown chmod chown chroot lchflags lchmod lchown getcwd chdir"
)
IMPORTED_UPSTREAM = ("numpy", "multiprocessing")  # by its runner; without what is taken, they cannot be imported
TAKEN_MODULES = ("ipdb", "joblib", "resource", "psutil", "tkinter")


class TimeoutException(Exception):
    """A test has used up its time. Recognised by this name, as upstream."""


def on_alarm(signum: int, frame: object) -> None:
    print("timeout occured: alarm went off")  # lands in the program's output if it survives the exception
    raise TimeoutException


def disarm() -> None:
    """Takes away what the official guard takes away. It is no protection, but programs that use it fail."""
    faulthandler.disable()
    builtins.quit = builtins.help = None  # type: ignore[assignment]
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in TAKEN_FROM_OS.split():
        setattr(os, name, None)
    for name in ("rmtree", "move", "chown"):
        setattr(shutil, name, None)
    subprocess.Popen = None  # type: ignore[assignment,misc]
    for name in TAKEN_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]


def without_main_guard(code: str) -> str:
    """Unwraps `if __name__ == '__main__':`, if that is the last statement."""
    with contextlib.suppress(Exception):
        *before, last = ast.parse(code).body
        if isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'":
            return _unparse(before) + "\n" + _unparse(last.body)
    return code


def as_function(code: str) -> str:
    """The program as the function `wrapped_function` of a module that begins with the prelude and its imports."""
    try:
        statements = ast.parse(code).body
        imports = [statement for statement in statements if isinstance(statement, ast.Import | ast.ImportFrom)]
        body = [statement for statement in statements if not isinstance(statement, ast.Import | ast.ImportFrom)]
        no_arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        function = ast.FunctionDef("wrapped_function", no_arguments, body, [], lineno=-1)
        return "\n".join([PRELUDE, _unparse(imports), ast.unparse(function)])
    except Exception:  # the module then fails to load, whatever is wrong
        return code


def _unparse(statements: Sequence[ast.stmt]) -> str:
    return ast.unparse(ast.Module(list(statements), []))


def load(source: str, name: str, timeout_s: int) -> Callable[..., Any]:
    """Executes the module and finds the function in it: in an instance of Solution wherever that class is mentioned."""
    signal.alarm(timeout_s)
    try:
        module = types.ModuleType("tmp_sol", "")
        exec(source, module.__dict__)
        holder = module.Solution() if "class Solution" in source else module
        if holder is None:
            raise AssertionError
    finally:
        signal.alarm(0)
    return getattr(holder, name)


class Bytes:
    """The stand-in for sys.stdin.buffer: every line is the first."""

    def __init__(self, text: str) -> None:
        self.inputs = text.encode()

    def read(self, *args: object) -> bytes:
        return self.inputs

    def readline(self, *args: object) -> bytes:
        return self.inputs.split(b"\n")[0] + b"\n"


class Stdin:
    """The stand-in for sys.stdin: it cannot be iterated over, and reading it does not use it up."""

    def __init__(self, text: str) -> None:
        self.inputs = text
        self._stringio = io.StringIO(text)
        self.buffer = Bytes(text)

    def read(self, *args: object) -> str:
        return self.inputs

    def readline(self, *args: Any) -> str:
        return self._stringio.readline(*args)

    def readlines(self, *args: object) -> list[str]:
        return self.inputs.split("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stringio, name)


def call_with_stdin(function: Callable[[], Any], text: str) -> None:
    """Calls it with the input in place. The first three stand-ins go onto the real sys.stdin, which a program holds
    that wrote `from sys import stdin`; the fourth then takes its place."""
    lines = iter(text.split("\n"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(sys.stdin, "read", lambda *args: text))
        stack.enter_context(replaced(sys.stdin, "readlines", lambda *args: text.split("\n")))
        stack.enter_context(replaced(sys.stdin, "readline", lambda *args: next(lines)))
        stack.enter_context(replaced(sys, "stdin", Stdin(text)))
        stack.enter_context(replaced(builtins, "open", mock_open(text)))
        with contextlib.suppress(SystemExit):
            function()


def mock_open(text: str) -> Callable[..., Any]:
    """The stand-in for builtins.open. What makes it takes long to import, and few programs need it."""
    made: list[Any] = []

    def opened(*args: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(importlib.import_module("unittest.mock").mock_open(read_data=text))
        return made[0](*args, **kwargs)

    return opened


@contextlib.contextmanager
def replaced(owner: Any, name: str, stand_in: object) -> Iterator[None]:
    """Another attribute for a while. What the owner did not have itself is deleted afterwards."""
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextlib.contextmanager
def captured_stdout() -> Any:
    """Collects what is printed; closing it is, as upstream, a TypeError."""
    before, sys.stdout = sys.stdout, io.StringIO()
    stream = sys.stdout
    stream.close = lambda ignored: 1  # type: ignore[assignment,misc]
    try:
        yield stream
    finally:
        sys.stdout = before


def run_test(action: Callable[[], dict[str, Any]], timeout_s: int) -> dict[str, Any]:
    """The message of one test: what the action gives, or how it failed."""
    signal.alarm(timeout_s)
    faulthandler.enable()
    try:
        return action()
    except Exception as error:
        signal.alarm(0)
        return {"error": TIMED_OUT if "timeoutexception" in repr(error).lower() else CRASHED}
    finally:
        signal.alarm(0)
        faulthandler.disable()


def run_stdin(job: dict[str, Any], send: Send) -> None:
    timeout_s = job["timeout_s"]
    function = load(as_function(without_main_guard(job["code"])), "wrapped_function", timeout_s)
    send({"loaded": True})
    for text in job["inputs"]:

        def action(text: str = text) -> dict[str, Any]:
            call_with_stdin(function, text)
            signal.alarm(0)
            return {}

        with captured_stdout() as stream:
            message = run_test(action, timeout_s)
            output = stream.getvalue()
        send(message or {"output": output})


def run_functional(job: dict[str, Any], send: Send) -> None:
    function = load(f"{PRELUDE}\n\n{job['code']}", job["fn_name"], job["timeout_s"])
    arguments = [[json.loads(line) for line in text.split("\n")] for text in job["inputs"]]
    dumps = portable.dumps
    send({"loaded": True})
    for test in arguments:

        def action(test: list[Any] = test) -> dict[str, Any]:
            value = function(*test)
            signal.alarm(0)
            return {"value": dumps(value)}

        send(run_test(action, job["timeout_s"]))


def main() -> None:
    job = load_job()
    sys.set_int_max_str_digits(MAX_INT_DIGITS)
    serve_asyncio(job["code"])
    send = open_channel()
    send({"ready": True})
    signal.signal(signal.SIGALRM, on_alarm)
    for name in IMPORTED_UPSTREAM:
        if name in job["code"]:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    disarm()
    signal.alarm(job["timeout_s"])
    try:
        (run_stdin if job["fn_name"] is None else run_functional)(job, send)
        send({"end": True})
    except Exception:  # in loading, or in what surrounds a test: one verdict for the whole program
        send({"failed": CRASHED})
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main()

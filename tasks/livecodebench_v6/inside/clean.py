"""Runs a program on a problem's tests as a program: a fresh process for every test. Runs inside the sandbox.

Each test is a fork of this process, which has imported what the program may take for granted, so that a test costs
milliseconds, not the start of an interpreter. A stdin program runs as `__main__`, with the input on descriptor 0; of a
functional one the function is called. Kinder than the official runner wherever the two differ, by intent.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import re
import resource
import select
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any, NoReturn

sys.path.append(os.path.dirname(os.path.abspath(__file__)))
import portable
from common import (
    BOX,
    CRASHED,
    MAX_INT_DIGITS,
    MAX_MESSAGE_BYTES,
    PRELUDE,
    TIMED_OUT,
    WRONG,
    Send,
    load_job,
    open_channel,
    serve_asyncio,
)

sys.path.pop()

MAX_OUTPUT_BYTES = MAX_MESSAGE_BYTES // 2
FIRST_INHERITED = 3  # descriptors from here on are closed in a test


def run_test(job: dict[str, Any], number: int, program: types.CodeType, prelude: dict[str, Any]) -> dict[str, Any]:
    """Forks a process for one test and says how it ended."""
    read_end, write_end = os.pipe()
    deadline = time.monotonic() + job["timeout_s"]
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (job["timeout_s"] + 1,) * 2)
        if job["fn_name"] is None:
            be_the_program(number, write_end, program, prelude)
        be_the_function(job, number, write_end, program, prelude=prelude)
    os.close(write_end)
    exited = os.pidfd_open(child)
    try:
        output, problem = collect(read_end, exited, deadline)
    finally:
        kill_group(child)
        _, status = os.waitpid(child, 0)
        os.close(exited)
        os.close(read_end)
    if problem is not None:
        return {"error": problem}
    if status != 0:
        return {"error": TIMED_OUT if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU else CRASHED}
    if job["fn_name"] is None:
        return {"output": output.decode(errors="replace")}
    return {"value": output.decode()} if output else {"error": CRASHED}


def collect(read_end: int, exited: int, deadline: float) -> tuple[bytes, int | None]:
    """What a test wrote until it ended, or the reason why it was not waited for."""
    output = bytearray()
    watched = [read_end, exited]
    while True:
        ready, _, _ = select.select(watched, [], [], max(deadline - time.monotonic(), 0))
        if read_end in ready:
            data = os.read(read_end, 1 << 16)
            output += data
            if len(output) > MAX_OUTPUT_BYTES:
                return b"", WRONG
            if not data:
                watched.remove(read_end)
        elif exited in ready:  # and nothing is left to read
            return bytes(output), None
        if time.monotonic() >= deadline:
            return b"", TIMED_OUT


def kill_group(child: int) -> None:
    for kill, target in ((os.killpg, child), (os.kill, child)):
        with contextlib.suppress(OSError):
            kill(target, signal.SIGKILL)


def be_the_program(number: int, output: int, program: types.CodeType, prelude: dict[str, Any]) -> NoReturn:
    """In the child: runs as a script does."""
    os.dup2(os.open(os.path.join(BOX, f"input-{number}"), os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.closerange(FIRST_INHERITED, 256)
    module = types.ModuleType("__main__")
    module.__dict__.update(prelude, __name__="__main__", __file__="solution.py")
    sys.modules["__main__"] = module
    sys.argv = ["solution.py"]
    status = 0
    try:
        exec(program, module.__dict__)
    except SystemExit:  # whatever its code: what counts is the output
        pass
    except BaseException:
        status = 1
    end_the_interpreter(module)
    os._exit(status)


def end_the_interpreter(module: types.ModuleType) -> None:
    """What a program can tell of an interpreter's end, without the tens of milliseconds that the rest takes."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    module.__dict__.clear()  # closes, and so flushes, the files that it left open
    gc.collect()
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]


def be_the_function(
    job: dict[str, Any], number: int, output: int, program: types.CodeType, prelude: dict[str, Any]
) -> NoReturn:
    """In the child: calls the function and hands over what it returns. What it prints is lost."""
    module = types.ModuleType("solution")
    module.__dict__.update(prelude, __name__="solution")
    exec(program, module.__dict__)
    function = find_function(module, job["fn_name"], prelude)
    arguments = [json.loads(line) for line in job["inputs"][number].split("\n")]
    data = memoryview(portable.dumps(function(*arguments)).encode())
    while data:
        data = data[os.write(output, data) :]
    os._exit(0)


def find_function(module: types.ModuleType, name: str, prelude: dict[str, Any]) -> Callable[..., Any]:
    """The method of that name of a class Solution, else the program's own function of that name."""
    solution = getattr(module, "Solution", None)
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    if module.__dict__[name] is prelude.get(name):  # operator.add is nobody's solution
        raise NameError(name)
    return module.__dict__[name]


def import_what_it_needs(code: str, packages: list[str]) -> None:
    """Imports the big packages that it mentions once, before the forks, instead of in every test."""
    for package in packages:
        if re.search(rf"^\s*(import|from)\s+{package}\b", code, re.MULTILINE):
            with contextlib.suppress(ImportError):  # the program will see that for itself
                importlib.import_module(package)


def run_tests(job: dict[str, Any], send: Send) -> None:
    prelude: dict[str, Any] = {}
    exec(PRELUDE, prelude)
    try:
        program = compile(job["code"], "solution.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        send({"failed": CRASHED})
        return
    import_what_it_needs(job["code"], job["packages"])
    send({"loaded": True})
    gc.freeze()  # what the forks share is not looked through in each of them
    for number in range(len(job["inputs"])):
        message = run_test(job, number, program, prelude)
        send(message)
        if "error" in message:
            return
    send({"end": True})


def main() -> None:
    job = load_job()
    sys.set_int_max_str_digits(MAX_INT_DIGITS)
    serve_asyncio(job["code"])
    send = open_channel()
    nothing = os.open(os.devnull, os.O_WRONLY)
    send({"ready": True})
    sys.stderr.flush()
    os.dup2(nothing, 2)
    os.close(nothing)
    run_tests(job, send)


if __name__ == "__main__":
    main()

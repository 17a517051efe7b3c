"""What both runners need: the names that a program may take for granted, and the channel to the host.

A message is one line of JSON: {"ready"} and {"loaded"} first, then {"output"}, {"value"} or {"error"} per test, and
{"end"}; or {"failed"} where a program fails as a whole.
"""

import functools
import importlib
import json
import os
from collections.abc import Callable
from typing import Any

BOX = os.path.dirname(os.path.abspath(__file__))
MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json"
)
PRELUDE = "".join(
    [f"from {name} import *\n" for name in (*MODULES.split(), "builtins", "typing")]
    + [f"import {name}\n" for name in MODULES.split()]
    + ["sys.setrecursionlimit(50000)\n"]
)
MAX_MESSAGE_BYTES = 16 << 20  # what makes a longer one is wrong: no expected output comes near
MAX_INT_DIGITS = 50_000

WRONG, TIMED_OUT, CRASHED = -2, -3, -4
Send = Callable[[dict[str, Any]], None]


def load_job() -> dict[str, Any]:
    """The program, its inputs, and how to run it."""
    with open(os.path.join(BOX, "job.json"), encoding="utf-8") as file:
        return json.load(file)


class PipeEnd:
    """One end of a pipe with as much of a socket as an event loop of asyncio needs to wake itself up."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.fileno, self.setblocking = lambda: descriptor, functools.partial(os.set_blocking, descriptor)
        self.recv, self.send = functools.partial(os.read, descriptor), functools.partial(os.write, descriptor)
        self.close = functools.partial(os.close, descriptor)


def serve_asyncio(code: str) -> None:
    """Sockets are denied here, and asyncio makes a pair of them for itself: programs with it get a pipe instead."""
    if "asyncio" in code:
        socket = importlib.import_module("socket")
        socket.socketpair = lambda *args, **kwargs: [PipeEnd(end) for end in os.pipe()]  # type: ignore[attr-defined]


def open_channel() -> Send:
    """Takes descriptor 1 for messages and leaves the program empty descriptors 0 and 1."""
    channel, write, dumps = os.dup(1), os.write, json.dumps
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)

    def send(message: dict[str, Any]) -> None:
        text = dumps(message, ensure_ascii=False)
        data = memoryview(text.encode(errors="surrogatepass") + b"\n")
        if len(data) > MAX_MESSAGE_BYTES:
            data = memoryview(dumps({"error": WRONG}).encode() + b"\n")
        while data:
            data = data[write(channel, data) :]

    return send

"""The program of an engine in a process of its own; harness.rollout.process starts it and is the other end.

The two speak over a Unix socket, in pickled tuples (log-probs as numpy arrays, exactly as they are here):

    to the engine                            from the engine
    (options, threads), first of all         ("ready", max_length)
    ("calls", [(index, Call), …])            ("answer", index, Answer) for each, as it is done; more calls may be sent
                                             while earlier ones are at work
    ("tell", method, arguments, streamed)    ("result", value); where weights are streamed, ("want",) before it
    a chunk (harness.rollout.handover), or   what every ("want",) is answered with
    ("end",)
    ("reset",)                               ("result", None)
    ("abort",)                               ("aborted",): of all calls, or of a stream of weights
                                             ("alive",) now and then, while it works on calls
                                             ("failed", text), ("refused", text of a UserError)

The engine ends when the socket is closed, whatever it is at, and by the watchdog of who started it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError
from harness.rollout.handover import receive_chunk
from harness.rollout.vllm import Answer, Call, EngineOptions, InProcessBackend

ALIVE_S = 2.0  # between two signs of life of an engine at work

Opener = Callable[[EngineOptions, int], AbstractContextManager[Any]]  # (options, threads) -> the engine


class _Aborted(Exception):
    """The other end no longer wants what it asked for."""


class _Served:
    """An engine that does what it is told over a connection."""

    def __init__(self, connection: Connection, engine: Any) -> None:
        self._connection, self._engine = connection, engine
        self._last_sign = 0.0

    def handle(self, message: tuple[Any, ...]) -> None:
        """Does one thing and reports how it ended; EOFError or OSError if there is nobody to report to."""
        kind, *arguments = message
        known: dict[str, Callable[..., None]] = {
            "calls": self._calls,
            "tell": self._tell,
            "reset": self._reset,
            "abort": self._abort,
        }
        try:
            known[kind](*arguments)
        except (EOFError, OSError):
            raise
        except _Aborted:
            self._connection.send(("aborted",))
        except UserError as error:
            self._connection.send(("refused", str(error)))
        except Exception as error:
            traceback.print_exc()
            self._connection.send(("failed", _in_one_line(error)))

    def _calls(self, first: list[tuple[int, Call]]) -> None:
        indices = [index for index, _ in first]

        def done(place: int, answer: Answer) -> None:
            self._connection.send(("answer", indices[place], answer))

        def more() -> Sequence[Call]:
            self._sign()
            calls: list[tuple[int, Call]] = []
            while self._connection.poll():
                kind, *arguments = self._connection.recv()
                if kind == "abort":
                    raise _Aborted
                calls += arguments[0]
            indices.extend(index for index, _ in calls)
            return [call for _, call in calls]

        self._engine.run([call for _, call in first], done, more)

    def _sign(self) -> None:
        if time.monotonic() - self._last_sign > ALIVE_S:
            self._last_sign = time.monotonic()
            self._connection.send(("alive",))

    def _tell(self, method: str, arguments: dict[str, Any], streamed: bool) -> None:
        if streamed:
            arguments["weights"] = self._weights()
        value = self._engine.tell(method, **arguments)
        if streamed and torch.cuda.is_available():
            torch.cuda.synchronize()  # the sender may change its tensors once it has the result
        self._connection.send(("result", value))

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        while True:
            self._connection.send(("want",))
            message = self._connection.recv()
            if message == ("end",):
                return
            if message == ("abort",):
                raise _Aborted
            yield from receive_chunk(self._connection, message)

    def _reset(self) -> None:
        self._engine.reset_prefix_cache()
        self._connection.send(("result", None))

    def _abort(self) -> None:
        raise _Aborted


def serve(connection: Connection, opener: Opener) -> int:
    """Opens an engine and does what it is told until the connection is closed; the exit status."""
    options, threads = connection.recv()
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(opener(options, threads))
        except UserError as error:
            connection.send(("refused", str(error)))
            return 2
        except Exception as error:
            traceback.print_exc()
            connection.send(("failed", _in_one_line(error)))
            return 1
        connection.send(("ready", engine.max_length))
        served = _Served(connection, engine)
        while True:
            served.handle(connection.recv())


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def main(opener: Opener = InProcessBackend) -> int:
    """The program: its one argument is the number of the socket's file descriptor."""
    try:
        return serve(Connection(int(sys.argv[1])), opener)
    except (EOFError, OSError):
        return 0  # who started us has closed the connection, or is no more


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the engine is closed; taking an interpreter with vLLM in it apart takes seconds

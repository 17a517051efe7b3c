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
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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


class _Gone(Exception):
    """There is no other end any more."""


class _Line:
    """The engine's end of the socket.

    What it says is written by a thread: if each end waited until the other one reads, with the socket's buffers full,
    both would wait forever.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._put_back: tuple[Any, ...] | None = None

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown()  # all is said, or there is nobody to hear it

    def say(self, *message: Any) -> None:
        """Sends a message after all earlier ones."""
        self._writer.submit(self.connection.send_bytes, pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def hear(self) -> Any:
        """The next message; _Gone if there will be none."""
        if self._put_back is not None:
            message, self._put_back = self._put_back, None
            return message
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            raise _Gone from None

    def has_more(self) -> bool:
        """Whether `hear` would return, or raise, at once."""
        try:
            return self._put_back is None and self.connection.poll()
        except OSError:
            raise _Gone from None

    def put_back(self, message: tuple[Any, ...]) -> None:
        """Is heard once more, later; until then there is no more."""
        self._put_back = message


class _Served:
    """An engine that does what it is told over a line."""

    def __init__(self, line: _Line, engine: Any) -> None:
        self._line, self._engine = line, engine
        self._last_sign = 0.0

    def handle(self, message: tuple[Any, ...]) -> None:
        """Does one thing and reports how it ended."""
        kind, *arguments = message
        known: dict[str, Callable[..., None]] = {
            "calls": self._calls,
            "tell": self._tell,
            "reset": self._reset,
            "abort": self._abort,
        }
        try:
            known[kind](*arguments)
        except _Gone:
            raise
        except _Aborted:
            self._line.say("aborted")
        except UserError as error:
            self._line.say("refused", str(error))
        except Exception as error:
            traceback.print_exc()
            self._line.say("failed", _in_one_line(error))

    def _calls(self, first: list[tuple[int, Call]]) -> None:
        indices = [index for index, _ in first]

        def done(place: int, answer: Answer) -> None:
            self._line.say("answer", indices[place], answer)

        def more() -> Sequence[Call]:
            self._sign()
            calls: list[tuple[int, Call]] = []
            while self._line.has_more():
                message = self._line.hear()
                if message[0] == "abort":
                    raise _Aborted
                if message[0] == "calls":
                    calls += message[1]
                else:  # the last answer is there, and the engine has not yet noticed that it has no more to do
                    self._line.put_back(message)
            indices.extend(index for index, _ in calls)
            return [call for _, call in calls]

        self._engine.run([call for _, call in first], done, more)

    def _sign(self) -> None:
        if time.monotonic() - self._last_sign > ALIVE_S:
            self._last_sign = time.monotonic()
            self._line.say("alive")

    def _tell(self, method: str, arguments: dict[str, Any], streamed: bool) -> None:
        if streamed:
            arguments["weights"] = self._weights()
        value = self._engine.tell(method, **arguments)
        if streamed and torch.cuda.is_available():
            torch.cuda.synchronize()  # the sender may change its tensors once it has the result
        self._line.say("result", value)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        while True:
            self._line.say("want")
            message = self._line.hear()
            if message == ("end",):
                return
            if message == ("abort",):
                raise _Aborted
            yield from receive_chunk(self._line.connection, message)

    def _reset(self) -> None:
        self._engine.reset_prefix_cache()
        self._line.say("result", None)

    def _abort(self) -> None:
        raise _Aborted


def serve(line: _Line, opener: Opener) -> int:
    """Opens an engine and does what it is told; the exit status if it does not open. _Gone when it is not needed."""
    options, threads = line.hear()
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(opener(options, threads))
        except UserError as error:
            line.say("refused", str(error))
            return 2
        except Exception as error:
            traceback.print_exc()
            line.say("failed", _in_one_line(error))
            return 1
        line.say("ready", engine.max_length)
        served = _Served(line, engine)
        while True:
            served.handle(line.hear())


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def main(opener: Opener = InProcessBackend) -> int:
    """The program: its one argument is the number of the socket's file descriptor. Returns the exit status."""
    with _Line(Connection(int(sys.argv[1]))) as line:
        try:
            return serve(line, opener)
        except _Gone:
            return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the engine is closed; taking an interpreter with vLLM in it apart takes seconds

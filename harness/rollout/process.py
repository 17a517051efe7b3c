"""vLLM in a process of its own on this machine: as in process, where that conflicts with the trainer's process.

What a vLLM shares with all of its process is its own here: the process group of torchrun, the allocator that sleeps,
the forward context, the precision of products. There is no HTTP and no JSON in between: harness.rollout.engine_program
says what goes over the socket.

Failures. An engine that ends, or gives no sign of life for `start_limit_s` (it gives one after every step), is an
EngineFailure: it is started once more and gets the calls that are open (harness.rollout.restarts). It never outlives
this process: it ends when the socket is closed, and the watchdog ends its process group if we end in any other way.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.rollout.handover import Named, chunks_of, release, send_chunk
from harness.rollout.restarts import RestartingBackend, taken
from harness.rollout.vllm import Done, EngineFailure, EngineOptions, Take, child_environment
from harness.sandbox.watchdog import unwatch, watch

PROGRAM = "harness.rollout.engine_program"
STOP_S = 10.0  # given to an engine to end by itself
LOOK_S = 1.0  # between two looks at whether a silent engine still lives: a process of its own may hold its socket open


class ProcessBackend(RestartingBackend):
    """A Backend over an InProcessBackend in a child process; a context manager, which starts and ends it."""

    engine = "vLLM engine"

    def __init__(
        self, options: EngineOptions, threads: int, device: int | None, log: Path, start_limit_s: float
    ) -> None:
        """
        Args:
            device: the GPU that it works on, as this process counts them; None: on a CPU.
            log: what the engine writes to its standard streams is appended here.
            start_limit_s: until it must be ready, and the longest that it may say nothing afterwards.
        """
        super().__init__()
        self.options, self.threads, self.device, self.log = options, threads, device, log
        self.max_length = options.max_length
        self.slots = options.max_sequences
        self._limit_s = start_limit_s
        self._lock = threading.RLock()  # one exchange at a time
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> ProcessBackend:
        try:
            self._start()
        except BaseException:
            self._end(0)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end(STOP_S)

    @property
    def pid(self) -> int | None:
        """Of the engine's process, which leads a process group; None while there is none."""
        return None if self._process is None else self._process.pid

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a process group of its own; an interrupt from the keyboard is ours to handle
                env=child_environment(self.threads, self.device),
            )
        watch(self._process.pid)
        for direction in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):  # for a message that stops in its middle
            ours.setsockopt(socket.SOL_SOCKET, direction, struct.pack("ll", math.ceil(self._limit_s), 0))
        self._connection = Connection(ours.detach())
        self._send((self.options, self.threads))  # it does nothing before: now the watchdog knows of it
        _, self.max_length = self._receive("ready")

    def _end(self, patience_s: float) -> None:
        """Closes the connection, and ends the process group after a while."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        unwatch(self._process.pid)
        self._process = None

    def start_again(self) -> None:
        """See RestartingBackend."""
        with self._lock:
            self._end(0)
            self._start()

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """One at a time. A failure or an interrupt in the middle ends the engine: what it would say later would be
        taken for an answer to something else.
        """
        with self._lock:
            try:
                yield
            except BaseException as error:
                if isinstance(error, EngineFailure) or not isinstance(error, Exception):
                    self._end(0)
                raise

    def work(self, take: Take, done: Done) -> None:
        """See RestartingBackend."""
        with self._exchange():
            at_work: set[int] = set()
            try:
                while True:
                    calls = taken(take, self.slots - len(at_work))
                    if calls:
                        self._send(("calls", calls))
                        at_work |= {index for index, _ in calls}
                    if not at_work:
                        return
                    _, index, answer = self._receive("answer")
                    at_work.remove(index)
                    done(index, answer)
            except EngineFailure:
                raise
            except Exception:  # an error in `done`: the engine stays usable
                self._abort()
                raise

    def tell(self, method: str, **arguments: Any) -> Any:
        """See Backend. `weights`, pairs of name and tensor, are handed over chunk by chunk (harness.rollout.handover).

        An error in that iterator is raised here; the engine then has a part of the weights.
        """
        with self._exchange():
            weights = arguments.pop("weights", None)
            chunks = chunks_of(weights or ())
            self._send(("tell", method, arguments, weights is not None))
            held: list[Named] | None = None  # until the engine has asked for the next
            while (message := self._receive("result", "want"))[0] == "want":
                held = self._next_chunk(chunks)
            del held
            if weights is not None:
                release(self.device)
            return message[1]

    def _next_chunk(self, chunks: Iterator[list[Named]]) -> list[Named] | None:
        try:
            chunk = next(chunks, None)
        except Exception:
            self._abort()
            raise
        if chunk is None:
            self._send(("end",))
            return None
        assert self._connection is not None and self.pid is not None  # it has asked
        with self._failures_told():
            send_chunk(self._connection, chunk, self.pid, self.device)
        return chunk

    def reset_prefix_cache(self) -> None:
        """See Backend."""
        with self._exchange():
            self._send(("reset",))
            self._receive("result")

    def _abort(self) -> None:
        """Has the engine give up what it is at, and forgets what it had still to say."""
        try:
            self._send(("abort",))
            self._receive("aborted", forget=("answer", "want", "failed", "refused"))
        except EngineFailure:
            self._end(0)

    def _send(self, message: tuple[Any, ...]) -> None:
        if self._connection is None:
            raise EngineFailure("the engine is not running")
        with self._failures_told():
            self._connection.send(message)

    def _receive(self, *wanted: str, forget: Sequence[str] = ()) -> tuple[Any, ...]:
        """The next message of a wanted kind; UserError, or EngineFailure with the sentence that says where to look."""
        while True:
            kind, *rest = self._next_message()
            if kind in wanted:
                return (kind, *rest)
            if kind in forget or kind == "alive":
                continue
            if kind == "refused":
                raise UserError(rest[0])
            said = rest[0] if kind == "failed" else f"it said {kind!r}, which was not asked for"
            raise EngineFailure(f"the engine's process failed: {said}; see {self.log}")

    def _next_message(self) -> tuple[Any, ...]:
        if self._connection is None or self._process is None:
            raise EngineFailure("the engine is not running")
        until = time.monotonic() + self._limit_s
        with self._failures_told():
            while time.monotonic() < until:
                ended = self._process.poll() is not None
                if self._connection.poll(0 if ended else min(LOOK_S, self._limit_s)):
                    message: tuple[Any, ...] = self._connection.recv()
                    return message
                if ended:
                    raise EOFError
            raise BlockingIOError

    @contextlib.contextmanager
    def _failures_told(self) -> Iterator[None]:
        """What can be wrong with the connection, as an EngineFailure; the engine is ended, if it has not yet."""
        try:
            yield
        except BlockingIOError:
            self._end(0)
            silent = f"said nothing for {self._limit_s:.0f} s"
            raise EngineFailure(f"the engine's process {silent}; see {self.log}") from None
        except (EOFError, ConnectionError):
            raise self._ended() from None

    def _ended(self) -> EngineFailure:
        """The sentence about a process that has closed its connection, after which nothing is left of it."""
        assert self._process is not None
        process = self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        self._end(0)
        status = process.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return EngineFailure(f"the engine's process {how}; see {self.log}")

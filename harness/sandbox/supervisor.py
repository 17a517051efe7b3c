"""Watches one running program: feeds on its output, enforces what no rlimit can, and ends all that it started."""

from __future__ import annotations

import os
import re
import select
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from harness.sandbox.confinement import Launch, memory_file
from harness.sandbox.program import Limits, Outcome, Program, Reason
from harness.sandbox.watchdog import watched


class Pending(Protocol):
    """What a watch waits for before it can say whether the program shall go on."""

    def fileno(self) -> int:
        """A descriptor that becomes readable then. It must: nothing else ends the wait but an end of the program."""
        ...


# Gets stdout piece by piece, and nothing ten times a second; returns whether the program shall go on. What takes long
# has no place in it: meanwhile nobody looks at what the program uses. Such a watch returns what it waits for; no output
# is read until that is there, and then the watch is called again, with nothing.
Watch = Callable[[bytes], bool | Pending]

_POLL_S = 0.1  # between looks at what the program uses
_SHORT_S = 0.2  # a program that ends earlier is not worth the milliseconds that joining a group takes
_JOINING_S = 0.05  # at each look; the rest of the processes join at the next one
_STDERR_TAIL = 4000
_CHUNK = 1 << 16
_START_LIMIT_S = 30.0  # for the confinement to stand, on however busy a machine
_LAST_WORDS_S = 2.0  # for pipes to run dry and for the group to vanish after the end
_USED = re.compile(rb"^Vm(?:RSS|PTE):\s+([0-9]+) kB", re.MULTILINE)  # in the status of a process


class LaunchError(RuntimeError):
    """The confinement tool did not get as far as starting the program: no verdict on the program."""


def run_launch(launch: Launch, program: Program, abort: threading.Event, watch: Watch | None = None) -> Outcome:
    """Runs a prepared launch to its end and leaves nothing running."""
    with memory_file(program.stdin) as stdin:
        process = subprocess.Popen(
            launch.command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=launch.descriptors,
            env=launch.environment,
            cwd=launch.folder,
            start_new_session=True,
        )
    with watched(process.pid):
        launch.release()
        run = _Run(process, launch, program.limits, watch)
        try:
            reason = run.follow(abort)
        finally:
            run.end()
    if run.started is None:
        raise LaunchError(f"the sandbox did not start: {run.stderr_tail.strip() or f'exit code {process.returncode}'}")
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return Outcome(
        stdout=bytes(run.stdout),
        stderr_tail=run.stderr_tail,
        exit=code if reason == "exited" else None,
        reason=reason,
        seconds=time.monotonic() - run.started,
    )


class _Run:
    """The state of one running program."""

    def __init__(self, process: subprocess.Popen[bytes], launch: Launch, limits: Limits, watch: Watch | None) -> None:
        self.stdout = bytearray()
        self.started: float | None = None  # when the program itself did
        self.first_inside: int | None = None  # pid of the first process of the namespace: it dies last
        self._process, self._launch, self._limits, self._watch = process, launch, limits, watch
        self._stderr = bytearray()
        self._stderr_bytes = 0
        self._counted: set[int] = set()  # processes whose memory the kernel counts, in a group
        self._awaited: Pending | None = None  # by the watch
        self._deadline = time.monotonic() + _START_LIMIT_S
        assert process.stdout and process.stderr
        self._stdout = process.stdout.fileno()
        self._streams = {self._stdout: self._take_stdout, process.stderr.fileno(): self._take_stderr}
        self._exit = os.pidfd_open(process.pid)
        self._last: int | None = None  # pidfd of first_inside
        self._selector = selectors.DefaultSelector()
        for descriptor in (*self._streams, self._exit):
            self._selector.register(descriptor, selectors.EVENT_READ)
        if launch.info_read is not None:
            self._selector.register(launch.info_read, selectors.EVENT_READ)
        if launch.lifeline is not None:
            self._selector.register(launch.lifeline, selectors.EVENT_READ)
        else:
            self._start_clock()

    @property
    def stderr_tail(self) -> str:
        return self._stderr[-_STDERR_TAIL:].decode(errors="replace")

    def follow(self, abort: threading.Event) -> Reason:
        """Returns when the program has ended or has to end."""
        next_look = time.monotonic() + _POLL_S / 2
        while True:
            now = time.monotonic()
            if now >= self._deadline:
                return "wall"
            if abort.is_set():
                return "stopped"
            if now >= next_look:
                next_look = now + _POLL_S
                if reason := self._excess() or self._remind():
                    return reason
            for key, _ in self._selector.select(max(min(next_look, self._deadline) - now, 0)):
                if key.fd == self._launch.info_read:
                    self._read_info()
                elif key.fileobj is self._launch.lifeline:
                    self._let_start()
                elif key.fd == self._exit:
                    return self._drain(abort) or "exited"
                elif reason := self._take(key):
                    return reason

    def end(self) -> None:
        """Kills what is left and waits until it is gone: the first process inside is the last to go."""
        self._read_info()
        if self._last is not None:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._last, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._last is not None:
            select.select([self._last], [], [], _LAST_WORDS_S)
            os.close(self._last)
        os.close(self._exit)
        self._selector.close()
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def _drain(self, abort: threading.Event) -> Reason | None:
        """Reads what was written before the end. Whoever still holds the pipes is killed, unread."""
        deadline = time.monotonic() + _LAST_WORDS_S
        self._read_info()
        for other in (self._exit, self._launch.info_read, self._launch.lifeline):
            if other is not None:
                self._forget(other)
        while self._selector.get_map() and (self._awaited or time.monotonic() < deadline):
            if abort.is_set():
                return "stopped"
            if self._awaited:
                deadline = time.monotonic() + _LAST_WORDS_S
            for key, _ in self._selector.select(_POLL_S if self._awaited else max(deadline - time.monotonic(), 0)):
                if reason := self._take(key):
                    return reason
        return None

    def _take(self, key: selectors.SelectorKey) -> Reason | None:
        """Takes what a stream gives, or what the watch has waited for."""
        if key.fileobj is not self._awaited:
            return self._read(key.fd)
        self._forget(key.fd)
        self._awaited = None
        self._selector.register(self._stdout, selectors.EVENT_READ)
        return self._ask(b"")

    def _ask(self, data: bytes) -> Reason | None:
        """Shows the watch some output. If it has to wait, the output is left unread, which holds the program up."""
        assert self._watch is not None
        answer = self._watch(data)
        if isinstance(answer, bool):
            return None if answer else "stopped"
        self._awaited = answer
        self._forget(self._stdout)
        self._selector.register(answer, selectors.EVENT_READ)
        return None

    def _remind(self) -> Reason | None:
        """Lets the watch have its say where nothing is written."""
        return None if self._watch is None or self._awaited else self._ask(b"")

    def _read(self, descriptor: int) -> Reason | None:
        data = os.read(descriptor, _CHUNK)
        if not data:
            self._selector.unregister(descriptor)
            return None
        return self._streams[descriptor](data)

    def _take_stdout(self, data: bytes) -> Reason | None:
        if self._watch is not None:
            return self._ask(data)
        room = self._limits.output_bytes - len(self.stdout)
        self.stdout += data[:room]
        return "output" if len(data) > room else None

    def _take_stderr(self, data: bytes) -> Reason | None:
        self._stderr_bytes += len(data)
        self._stderr = (self._stderr + data)[-2 * _STDERR_TAIL :]
        return "output" if self._stderr_bytes > self._limits.output_bytes else None

    def _read_info(self) -> None:
        """Learns the pid of the first process inside, once bubblewrap has told it."""
        descriptor = self._launch.info_read
        if descriptor is None or self.first_inside is not None or not select.select([descriptor], [], [], 0)[0]:
            return
        found = re.search(rb'"child-pid"\s*:\s*(\d+)', os.read(descriptor, 4096))
        if found:
            self._forget(descriptor)
            self.first_inside = int(found[1])
            with suppress(ProcessLookupError):
                self._last = os.pidfd_open(self.first_inside)

    def _let_start(self) -> None:
        """Answers the program's starter. By now all processes around it are tied to this one's life."""
        lifeline = self._launch.lifeline
        assert lifeline is not None
        self._forget(lifeline)
        with suppress(OSError):
            if lifeline.recv(1):
                self._read_info()
                self._start_clock()
                lifeline.send(b"g")

    def _start_clock(self) -> None:
        self.started = time.monotonic()
        self._deadline = self.started + self._limits.wall_s

    def _forget(self, source: int | socket.socket) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(source)

    def _excess(self) -> Reason | None:
        """What all processes together use too much of. Pages that they share count once for each."""
        used, tasks, processes = _usage(self.first_inside or self._process.pid)
        if self.started is not None and time.monotonic() >= self.started + _SHORT_S:
            self._count(processes)
        if used > self._limits.memory_bytes:
            return "memory"
        if self.first_inside is not None and _files(self.first_inside) > self._limits.files:
            return "files"
        return "processes" if tasks > 2 * self._limits.processes else None

    def _count(self, processes: dict[int, int]) -> None:
        """Has the kernel count the memory of processes, children first: those of a counted one are so from their start.

        Except for those of the first process inside, which inherits orphans.
        """
        if self.first_inside is None:
            return
        until = time.monotonic() + _JOINING_S
        before = self._counted - {self.first_inside}
        for process, parent in reversed(processes.items()):
            if process not in self._counted and parent not in before and time.monotonic() < until:
                self._launch.join(process)
                self._counted.add(process)


def _files(inside: int) -> int:
    """How many files and folders there are in the temporary folder that a process sees; 0 where it has none."""
    try:
        folder = os.statvfs(f"/proc/{inside}/root/tmp")
    except OSError:  # it has ended
        return 0
    return folder.f_files - folder.f_ffree


def _usage(root: int) -> tuple[int, int, dict[int, int]]:
    """Bytes of resident memory and page tables, and number of tasks, of a process and all its descendants.

    The third value gives the parent of each of them, parents before children.
    """
    used = tasks = 0
    processes: dict[int, int] = {}
    pending = [(root, 0)]
    while pending:
        process, parent = pending.pop()
        processes[process] = parent
        with suppress(OSError, ValueError, IndexError):  # it may end meanwhile
            with open(f"/proc/{process}/status", "rb") as status:
                used += sum(int(kilobytes) << 10 for kilobytes in _USED.findall(status.read()))
            for task in os.listdir(f"/proc/{process}/task"):
                tasks += 1
                with suppress(OSError), open(f"/proc/{process}/task/{task}/children", "rb") as children:
                    pending += [(int(child), process) for child in children.read().split()]
    return used, tasks, processes

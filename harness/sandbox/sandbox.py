"""The sandbox that callers use: finds out what works on this machine, and runs programs in it, many at a time."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from harness.errors import UserError
from harness.sandbox.canary import objections
from harness.sandbox.confinement import Bubblewrap, Confinement, Unconfined
from harness.sandbox.program import Outcome, Program
from harness.sandbox.supervisor import LaunchError, Watch, run_launch

ALLOW_UNSANDBOXED = "ALLOW_UNSANDBOXED_CODE"  # environment variable; 1: run untrusted programs even without a sandbox
_ATTEMPTS = 3  # to start a sandbox, on a machine that may be short of processes for a moment

Item = TypeVar("Item")
Result = TypeVar("Result")


class SandboxError(RuntimeError):
    """The sandbox broke, which says nothing about the program in it."""


class Sandbox:
    """Runs programs by one confinement. Safe to use from several threads."""

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement
        self._abort = threading.Event()
        self._lock = threading.Lock()
        self._taken: set[int] = set()

    @classmethod
    def detect(cls, allow_unsafe: bool | None = None) -> Sandbox:
        """The safest confinement that works here, by trying; without one a UserError.

        Args:
            allow_unsafe: whether running without any confinement is better than not running; None: as the environment
                variable ALLOW_UNSANDBOXED_CODE says.
        """
        if allow_unsafe is None:
            allow_unsafe = os.environ.get(ALLOW_UNSANDBOXED, "") in ("1", "true", "yes")
        sandbox, reasons = _detect(os.geteuid())
        if sandbox is not None:
            return sandbox
        if allow_unsafe:
            return cls(Unconfined())
        raise UserError(
            f"Code benchmarks run programs that a model wrote, and no sandbox works here ({reasons}); install "
            "bubblewrap (apt-get install bubblewrap, dnf install bubblewrap) or, to run them unprotected, set "
            f"{ALLOW_UNSANDBOXED}=1."
        )

    @property
    def name(self) -> str:
        """What confines the programs, for results to say."""
        return self._confinement.name

    @property
    def confined(self) -> bool:
        """Whether the programs are confined at all."""
        return self._confinement.confined

    def run(self, program: Program, watch: Watch | None = None) -> Outcome:
        """Runs one program to its end.

        Args:
            watch: gets the output as it comes, in pieces, instead of the outcome's stdout, and returns whether the
                program shall go on. It, not the limit, then bounds the output.
        """
        for attempt in range(_ATTEMPTS):
            with self._slot() as slot, self._confinement.prepare(program, slot) as launch:
                try:
                    return run_launch(launch, program, self._abort, watch)
                except LaunchError as error:
                    if attempt + 1 == _ATTEMPTS:
                        raise SandboxError(str(error)) from error
        raise AssertionError("unreachable")

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        workers: int | None = None,
        done: Callable[[int], None] | None = None,
    ) -> list[Result]:
        """Applies a function that runs programs here to every item, several at a time; results in the items' order.

        Args:
            workers: how many at a time; None: one for each core that this process may use.
            done: called with 1 whenever an item is finished.
        """
        finished = threading.Lock()

        def work(item: Item) -> Result:
            result = function(item)
            if done is not None:
                with finished:
                    done(1)
            return result

        with ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="sandbox") as pool:
            futures: list[Future[Result]] = [pool.submit(work, item) for item in items]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                return [future.result() for future in futures if not future.cancelled()]
            except BaseException:  # an interrupt included: what runs is stopped, what waits is dropped
                pool.shutdown(wait=False, cancel_futures=True)
                self._abort.set()
                pool.shutdown(wait=True)
                self._abort.clear()
                raise

    @contextmanager
    def _slot(self) -> Iterator[int]:
        """A number that no other running program has."""
        with self._lock:
            slot = next(number for number in range(len(self._taken) + 1) if number not in self._taken)
            self._taken.add(slot)
        try:
            yield slot
        finally:
            with self._lock:
                self._taken.discard(slot)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.lru_cache
def _detect(user: int) -> tuple[Sandbox | None, str]:
    """The first confinement in which the canary finds nothing to object to; otherwise why there is none."""
    reasons = []
    for confinement in (Bubblewrap(as_root=True), Bubblewrap(as_root=False)):
        problem = confinement.missing()
        if problem is None:
            sandbox = Sandbox(confinement)
            try:
                problem = objections(sandbox.run)
            except (SandboxError, OSError) as error:
                problem = str(error)
        if problem is None:
            return sandbox, ""
        if confinement.as_root is (user == 0) or problem != "not root":
            reasons.append(f"{confinement.name}: {problem}")
    return None, "; ".join(reasons)

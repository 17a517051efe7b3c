"""What the two backends share whose engine is another process: a failure is mended once, and nothing is asked twice."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from harness.rollout.vllm import Answer, Call, Done, EngineFailure, Take

RESTARTS = 1  # of an engine in the life of a run's process


class RestartingBackend(ABC):
    """A Backend over an engine that can be started anew; a context manager.

    The first EngineFailure starts it once more, tells it everything in `after_restart` again (vocabulary, current
    weights), and asks again for what is still open; the second one is raised. A pool (harness.rollout.pool) calls
    `work` and `recover` itself, and has others answer meanwhile.
    """

    engine: str  # what it is called in the sentence about a restart
    max_length: int
    slots: int  # calls that it works on side by side

    def __enter__(self) -> RestartingBackend:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Ends the engine if it is ours."""

    def __init__(self) -> None:
        self._restarts_left = RESTARTS
        self.after_restart: list[Callable[[], None]] = []

    @abstractmethod
    def work(self, take: Take, done: Done) -> None:
        """Answers what `take` gives, up to `slots` calls side by side, until it gives no more; `done` is called in this
        thread. An EngineFailure leaves calls unanswered that were taken.
        """

    @abstractmethod
    def tell(self, method: str, **arguments: Any) -> Any:
        """See Backend."""

    @abstractmethod
    def reset_prefix_cache(self) -> None:
        """See Backend."""

    @abstractmethod
    def start_again(self) -> None:
        """Ends the engine, if it still lives, and starts another; EngineFailure if that is not ready in time."""

    def run(self, calls: Sequence[Call], done: Done) -> None:
        """See Backend. After a restart only the calls without an answer are made again."""
        open_calls = dict(enumerate(calls))

        def answered(index: int, answer: Answer) -> None:
            del open_calls[index]
            done(index, answer)

        while open_calls:
            waiting = iter(list(open_calls.items()))
            try:
                self.work(lambda waiting=waiting: next(waiting, None), answered)  # type: ignore[misc]
            except EngineFailure as failure:
                self.recover(failure)

    def recover(self, failure: EngineFailure) -> None:
        """See Backend."""
        if self._restarts_left == 0:
            raise failure
        self._restarts_left -= 1
        print(f"{self.engine}: {failure}; starting it once more", file=sys.stderr)
        self.start_again()
        for tell in self.after_restart:
            tell()


def taken(take: Take, most: int) -> list[tuple[int, Call]]:
    """What `take` gives now, `most` calls at most."""
    calls: list[tuple[int, Call]] = []
    while len(calls) < most and (item := take()) is not None:
        calls.append(item)
    return calls

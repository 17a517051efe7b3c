"""Several engines with one model, used as one: calls go to whoever has room, and a dead member's to the others.

A run deals out at most an even share of its calls to each member, and at most as many as it works on side by side
(`slots`); whoever has answered some gets the next ones, so that a slow member holds up no more than it has in hand.
Which member answers changes nothing: a completion depends on its own seed.

Failures. A member that dies, hangs or answers nonsense gives its open calls back, and is replaced once while the others
go on. It takes calls again only when everything in `after_restart` ran for it alone: a member with the weights of its
source, or of an older policy, never answers. Without any living member the failure is the run's. Only the owner of a
pool replaces members. Others that use the same servers drop a dead one until `meet`, which follows a push: a restarted
server has the model under a new name (harness.rollout.server.ServerProcess), so they cannot reach it before by chance.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from harness.rollout.restarts import RestartingBackend
from harness.rollout.vllm import Answer, Call, Done, EngineFailure

T = TypeVar("T")
NOBODY = "no engine of the pool is left"


class _Closed(Exception):
    """Nobody waits for answers any more."""


@dataclass(frozen=True)
class _Ended:
    """A member's thread is through, or an error has ended it."""

    by: BaseException | None


class _Board:
    """The calls of one run: what is open, who has which. Members' threads take and answer; the answers, and the ends of
    these threads, go to the caller as `events`.
    """

    def __init__(self, calls: Sequence[Call], members: int) -> None:
        self.events: SimpleQueue[tuple[int, Answer] | _Ended] = SimpleQueue()
        self.unanswered = self._all = len(calls)
        self._open = deque(enumerate(calls))
        self._members = members  # at work
        self._taken: dict[int, dict[int, Call]] = {}
        self._closed = False
        self._changed = threading.Condition()

    def wait_for_calls(self) -> bool:
        """Blocks until there are open calls (True), or will be none (False)."""
        with self._changed:
            self._changed.wait_for(lambda: self._open or self.unanswered == 0 or self._closed)
            return bool(self._open) and not self._closed

    def take(self, member: int) -> tuple[int, Call] | None:
        """The next call, unless the member has its even share in hand."""
        with self._changed:
            mine = self._taken.setdefault(member, {})
            if self._closed or not self._open or len(mine) >= -(-self._all // max(1, self._members)):
                return None
            index, call = self._open.popleft()
            mine[index] = call
            return index, call

    def answer(self, member: int, index: int, answer: Answer) -> None:
        """Notes a member's answer."""
        with self._changed:
            if self._closed:
                raise _Closed
            del self._taken[member][index]
            self.unanswered -= 1
            self.events.put((index, answer))
            self._changed.notify_all()

    def give_back(self, member: int) -> None:
        """The member is not at work any more: others have what it had."""
        with self._changed:
            self._members -= 1
            self._open.extendleft(reversed(self._taken.pop(member, {}).items()))
            self._changed.notify_all()

    def come_back(self) -> None:
        """A member that had given back is at work again."""
        with self._changed:
            self._members += 1

    def close(self) -> None:
        """Nothing more is wanted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class PoolBackend:
    """A Backend over several; a context manager that starts and ends them, side by side."""

    def __init__(self, members: Sequence[RestartingBackend], owner: bool = True) -> None:
        """
        Args:
            members: not entered yet; what they must be told after a restart is told to the pool (`after_restart`).
            owner: replaces members that die. False: another process does, and says so (`meet`).
        """
        self._members, self._owner = list(members), owner
        self._alive = [True] * len(self._members)
        self._failed: dict[int, EngineFailure] = {}  # by the last command to all
        self._only = threading.local()  # the member that commands of this thread are for, while it is replaced
        self._one_at_a_time = threading.Lock()  # of the members that are told what a fresh one must know
        self.after_restart: list[Callable[[], None]] = []

    def __enter__(self) -> PoolBackend:
        try:
            _results_of(_at_once([member.__enter__ for member in self._members]))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _results_of(_at_once([member.__exit__ for member in self._members]))

    @property
    def max_length(self) -> int:
        """See Backend: what every member takes."""
        return min(member.max_length for member in self._members)

    @property
    def living(self) -> tuple[bool, ...]:
        """Which members take calls."""
        return tuple(self._alive)

    def run(self, calls: Sequence[Call], done: Done) -> None:
        """See Backend. `done` is called in this thread. Returns when a member that died meanwhile is replaced, too, so
        that no push finds it half started.
        """
        numbers = self._addressed()
        board = _Board(calls, len(numbers))
        for number in numbers:
            threading.Thread(target=self._serve, args=(number, board), daemon=True).start()
        failure, at_work = EngineFailure(NOBODY), len(numbers)
        try:
            while at_work:
                event = board.events.get()
                if not isinstance(event, _Ended):
                    done(*event)
                    continue
                at_work -= 1
                if isinstance(event.by, EngineFailure):
                    failure = event.by
                elif event.by is not None:
                    raise event.by
        finally:
            board.close()
        if board.unanswered:
            raise failure

    def _serve(self, number: int, board: _Board) -> None:
        """A member's thread in a run."""
        ended_by: BaseException | None = None
        try:
            while board.wait_for_calls():
                try:
                    self._members[number].work(partial(board.take, number), partial(board.answer, number))
                except EngineFailure as failure:
                    board.give_back(number)
                    self._replace(number, failure)
                    board.come_back()
        except _Closed:
            pass
        except BaseException as error:
            ended_by = error
        board.events.put(_Ended(ended_by))

    def _replace(self, number: int, failure: EngineFailure) -> None:
        """Starts a member anew, or raises an EngineFailure and goes on without it."""
        self._alive[number] = False
        try:
            if not self._owner:
                raise failure
            self._members[number].recover(failure)
            with self._one_at_a_time, self._speaking_to(number):
                for tell in self.after_restart:
                    tell()
        except EngineFailure as last:
            print(f"{self._members[number].engine} {number}: {last}; going on without it", file=sys.stderr)
            raise
        self._alive[number] = True

    def tell(self, method: str, **arguments: Any) -> Any:
        """See Backend: to all members at once; the first one's result."""
        if arguments.get("weights") is not None:  # an iterator: all of it for everybody
            arguments["weights"] = list(arguments["weights"])
        return self._to_all(lambda member: member.tell(method, **arguments))[0]

    def reset_prefix_cache(self) -> None:
        """See Backend: of all members."""
        self._to_all(lambda member: member.reset_prefix_cache())

    def recover(self, failure: EngineFailure) -> None:
        """See Backend: replaces the members that failed in the last command to all, or goes on without them."""
        failed, self._failed = self._failed, {}
        found = _at_once([partial(self._replace, number, reason) for number, reason in failed.items()])
        _results_of([result for result in found if not isinstance(result, EngineFailure)])
        if not failed or not any(self._alive):
            raise failure

    def meet(self, living: Sequence[bool]) -> None:
        """For who does not own the pool: the members that live according to the owner, all of them with the weights
        that it pushed last, take calls again; they are asked under which name they serve the model now.
        """
        self._alive = list(living)
        try:
            self._to_all(lambda member: member.start_again())
        except EngineFailure as failure:
            self.recover(failure)  # goes on without it

    @property
    def receivers(self) -> int:
        """How many members the next transfer of weights goes to; with the sender it is the size of its group."""
        return len(self._addressed())

    def transfer_client(self) -> TransferClient:
        """For vLLM's weight transfer to the members that this thread's commands are for."""
        return TransferClient(partial(self._to_members, self._addressed()))

    def _addressed(self) -> list[int]:
        """The members that this thread's commands are for: those that live, or the one that it replaces."""
        only = getattr(self._only, "number", None)
        return [number for number, alive in enumerate(self._alive) if alive] if only is None else [only]

    @contextmanager
    def _speaking_to(self, number: int) -> Iterator[None]:
        self._only.number = number
        try:
            yield
        finally:
            self._only.number = None

    def _to_all(self, do: Callable[[RestartingBackend], T]) -> list[T]:
        """What every member that is addressed answers."""
        return self._to_members(self._addressed(), lambda member, _: do(member))

    def _to_members(self, numbers: Sequence[int], do: Callable[[Any, int], T]) -> list[T]:
        """What these members answer; `do` is given a member and its place among them."""
        if not numbers:
            raise EngineFailure(NOBODY)
        found = _at_once([partial(do, self._members[number], place) for place, number in enumerate(numbers)])
        for number, result in zip(numbers, found, strict=True):
            if isinstance(result, EngineFailure) and self._alive[number]:
                self._failed[number] = result
        return _results_of(found)


class TransferClient:
    """vLLM's VLLMWeightSyncClient for one sender and several receivers, each of them an engine with one worker.

    Never run between GPUs.
    """

    def __init__(self, to_members: Callable[[Callable[[Any, int], None]], list[None]]) -> None:
        self._to_members = to_members

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """See vllm.distributed.weight_transfer.base; where engines have ranks (nccl), each gets its own."""

        def init(member: Any, place: int) -> None:
            own = {"rank_offset": init_info["rank_offset"] + place} if "rank_offset" in init_info else {}
            member.init_weight_transfer_engine({**init_info, **own})

        self._to_members(init)

    def start_weight_update(self) -> None:
        """See vllm.distributed.weight_transfer.base."""
        self._to_members(lambda member, _: member.start_weight_update())

    def update_weights(self, update_info: Any) -> None:
        """See vllm.distributed.weight_transfer.base."""
        self._to_members(lambda member, _: member.update_weights(update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """See vllm.distributed.weight_transfer.base."""
        self._to_members(lambda member, _: member.finish_weight_update(weight_version))


def _at_once(actions: Sequence[Callable[[], T]]) -> list[T | BaseException]:
    """Does all side by side, and all to the end: what each returned or raised."""
    with ThreadPoolExecutor(max(1, len(actions))) as threads:
        futures = [threads.submit(action) for action in actions]
    return [future.exception() or future.result() for future in futures]


def _results_of(found: Sequence[T | BaseException]) -> list[T]:
    """What was returned; raises the first error, one that is no EngineFailure before one that is."""
    for error in sorted((x for x in found if isinstance(x, BaseException)), key=lambda x: isinstance(x, EngineFailure)):
        raise error
    return [result for result in found if not isinstance(result, BaseException)]

"""A pool of engines, with members made here that are slow, die, and come back; no vLLM is needed."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from harness.rollout import RolloutRequest, Sampling
from harness.rollout.pool import PoolBackend
from harness.rollout.restarts import RestartingBackend
from harness.rollout.vllm import NOT_PUSHED, Answer, Call, Done, EngineFailure, Logprobs, Take, VLLMEngine, narrow
from harness.rollout.weights import PushedWeights, TransferWeights


class Member(RestartingBackend):
    """Answers a call with its seed and the weights that it has; what a fresh one holds is a policy called stale.

    It dies at the calls of these `deaths`, counted from 1 over its life, and at as many commands as `tells_to_fail`.
    """

    engine = "member"

    def __init__(self, seconds: float = 0.0, slots: int = 2, deaths: Sequence[int] = ()) -> None:
        super().__init__()
        self.seconds, self.slots = seconds, slots
        self.deaths, self.tells_to_fail = deaths, 0
        self.max_length, self.starts, self.weights = 100, 1, "stale"
        self.alive, self.begun, self.most_in_hand, self.entered = True, 0, 0, 0
        self.told: list[str] = []
        self.waits_for: Callable[[], bool] = lambda: True  # before it answers
        self.comes_back_when: Callable[[], bool] = lambda: True
        self.answered: list[int] = []
        self.lost: list[int] = []  # what it had in hand when it died

    def __enter__(self) -> Member:
        self.entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.entered -= 1

    def work(self, take: Take, done: Done) -> None:
        if not self.alive:
            raise EngineFailure("it is dead")
        in_hand: list[tuple[int, Call]] = []
        while True:
            while len(in_hand) < self.slots and (item := take()) is not None:
                in_hand.append(item)
            self.most_in_hand = max(self.most_in_hand, len(in_hand))
            if not in_hand:
                return
            index, call = in_hand.pop(0)
            time.sleep(self.seconds)
            wait_until(self.waits_for)
            seed = call.options["seed"]
            self.begun += 1
            if self.begun in self.deaths:
                self.alive = False
                self.lost += [seed, *(call.options["seed"] for _, call in in_hand)]
                raise EngineFailure(f"died at call {self.begun}")
            self.answered.append(seed)
            done(index, answer_of(seed, self.weights))

    def tell(self, method: str, **arguments: Any) -> Any:
        if self.tells_to_fail:
            self.tells_to_fail -= 1
            self.alive = False
            raise EngineFailure(f"did not do {method}")
        if method == "load":
            self.weights = arguments["value"]
        if method == "harness_load":
            self.weights = "".join(arguments["weights"])
        self.told.append(method)
        return self.weights

    def reset_prefix_cache(self) -> None:
        self.told.append("reset")

    def start_again(self) -> None:
        wait_until(self.comes_back_when)
        self.starts += 1
        self.alive, self.weights = True, "stale"


def wait_until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.001)


def answer_of(seed: int, weights: str) -> Answer:
    """The weights' letters stand among the tokens."""
    tokens = (seed, *map(ord, weights))
    values = np.zeros(len(tokens), dtype=np.float32)
    return Answer(tokens, False, Logprobs(values, np.zeros((len(tokens), 0), int), values[:, None][:, :0]), None)


class Told(PushedWeights):
    """Weights that are a word, told in one command."""

    word = "new"

    def send(self) -> None:
        self.engine.backend.tell("load", value=self.word)


def calls(count: int) -> list[Call]:
    return [Call((1,), {"seed": seed}) for seed in range(count)]


def run(pool: PoolBackend, count: int) -> dict[int, Answer]:
    found: dict[int, Answer] = {}

    def done(index: int, answer: Answer) -> None:
        assert index not in found and threading.current_thread() is threading.main_thread()
        found[index] = answer

    pool.run(calls(count), done)
    assert sorted(found) == list(range(count))
    assert all(answer.token_ids[0] == index for index, answer in found.items())
    return found


def test_whoever_has_room_gets_the_next() -> None:
    """One member is stuck until the other has answered a hundred calls; an even split would have left it 55."""
    fast, slow = Member(), Member()
    slow.waits_for = lambda: len(fast.answered) >= 100
    with PoolBackend([fast, slow]) as pool:
        run(pool, 110)
    assert len(fast.answered) + len(slow.answered) == 110 and len(fast.answered) >= 100
    assert slow.most_in_hand <= 2 and fast.most_in_hand == 2


def test_few_calls_are_split_evenly() -> None:
    """Members have more slots than there are calls: nobody takes them all."""
    members = [Member(slots=64) for _ in range(4)]
    for member in members:
        member.waits_for = lambda: all(each.most_in_hand for each in members)
    with PoolBackend(members) as pool:
        run(pool, 10)
    assert all(member.most_in_hand <= 3 and member.answered for member in members)  # 10 / 4, upwards


def test_what_is_answered_does_not_depend_on_the_members() -> None:
    with PoolBackend([Member()]) as one, PoolBackend([Member(), Member(0.001), Member(slots=1)]) as three:
        assert all(run(one, 50)[i].token_ids == answer.token_ids for i, answer in run(three, 50).items())
    with PoolBackend([Member(), Member()]) as pool:
        requests = [RolloutRequest(str(i), (1,), seed=i) for i in range(20)]
        rollouts = VLLMEngine(pool).generate(requests, Sampling(3))
    assert [(r.prompt_id, r.completion_ids[0]) for r in rollouts] == [(str(i), i) for i in range(20)]


def test_a_dead_members_calls_go_to_the_others_while_it_is_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    dying, other = Member(slots=8, deaths=(3,)), Member(slots=8)
    other.waits_for = lambda: dying.begun >= 3
    dying.comes_back_when = lambda: len(other.answered) == 38
    with PoolBackend([dying, other]) as pool:
        pushed = VLLMEngine(pool)
        Told(pushed, model=None).push(1)  # type: ignore[arg-type]
        found = run(pool, 40)
        assert Counter(map(_weights, found.values())) == {"new": 40}
        assert dying.starts == 2 and other.starts == 1
        assert len(dying.lost) == 8 and set(dying.lost) <= set(other.answered)  # it was still being started
        assert dying.told == ["load", "reset"] * 2 and other.told == ["load", "reset"]  # only the fresh one is told
        assert capfd.readouterr().err == "member: died at call 3; starting it once more\n"
        assert len(dying.answered) == 2
        other.waits_for = lambda: len(dying.answered) > 2
        run(pool, 40)  # it is at work again


def _weights(answer: Answer) -> str:
    return "".join(map(chr, answer.token_ids[1:]))


def test_a_replaced_member_answers_only_with_the_current_weights() -> None:
    """It is up a while before it is told; nothing may reach it in between, and it is the only one of a pool of one."""
    one, two = [Member(deaths=(5,))], [Member(deaths=(5,)), Member()]
    two[1].waits_for = lambda: two[0].begun >= 5
    for members in (one, two):
        with PoolBackend(members) as pool:
            weights = Told(VLLMEngine(pool), model=None)  # type: ignore[arg-type]
            weights.push(1)
            pool.after_restart.insert(0, lambda: time.sleep(0.2))
            assert set(map(_weights, run(pool, 60).values())) == {"new"}
            assert members[0].starts == 2


def test_a_member_that_dies_again_is_left_out_and_the_last_ones_failure_is_the_runs(
    capfd: pytest.CaptureFixture[str],
) -> None:
    first, second = Member(deaths=(2, 5)), Member()
    second.waits_for = lambda: first.begun >= 5
    with PoolBackend([first, second]) as pool:
        run(pool, 60)
        assert pool.living == (False, True) and first.starts == 2 and len(first.answered) == 3
        again, left = capfd.readouterr().err.splitlines()
        assert again == "member: died at call 2; starting it once more"
        assert left == "member 0: died at call 5; going on without it"
        first.alive = True
        run(pool, 10)
        assert len(first.answered) == 3  # it is asked no more
        second.deaths = range(1000)
        with pytest.raises(EngineFailure, match="died at call"):
            run(pool, 10)
        assert pool.living == (False, False) and second.starts == 2
        with pytest.raises(EngineFailure, match="no engine of the pool is left"):
            run(pool, 10)


def test_commands_go_to_all_at_once() -> None:
    members = [Member(), Member(), Member()]
    with PoolBackend(members) as pool:
        narrow(pool, 64)
        pool.reset_prefix_cache()
        assert pool.tell("harness_load", weights=iter("abc")) == "abc"
    assert all(member.told == ["harness_narrow", "reset", "harness_load"] for member in members)
    assert {member.weights for member in members} == {"abc"}  # the iterator is not shared out among them


def test_a_push_that_one_member_does_not_take_is_made_again_on_all() -> None:
    members = [Member(), Member()]
    with PoolBackend(members) as pool:
        engine = VLLMEngine(pool)
        weights = Told(engine, model=None)  # type: ignore[arg-type]
        members[1].tells_to_fail = 1
        weights.push(1)
        assert engine.policy_version == 1 and [m.starts for m in members] == [1, 2]
        assert {m.weights for m in members} == {"new"}
        weights.word, members[1].tells_to_fail = "newer", 1
        weights.push(2)  # without the second one, which may not be started again
        assert engine.policy_version == 2 and pool.living == (True, False)
        assert set(map(_weights, run(pool, 10).values())) == {"newer"}
        members[0].tells_to_fail = 2
        with pytest.raises(EngineFailure):
            weights.push(3)
            weights.push(4)
        assert engine.policy_version in (NOT_PUSHED, 3)


def test_who_does_not_own_the_pool_leaves_a_dead_member_out_until_they_meet() -> None:
    dying, other = Member(deaths=(1,)), Member()
    other.waits_for = lambda: dying.begun >= 1
    with PoolBackend([dying, other], owner=False) as pool:
        run(pool, 20)
        assert pool.living == (False, True) and dying.starts == 1
        dying.alive = True  # its owner has started it again, and not yet brought the weights
        before = list(dying.answered)
        run(pool, 20)
        assert dying.answered == before
        pool.meet((True, True))
        assert pool.living == (True, True)
        other.waits_for = lambda: len(dying.answered) > 0
        run(pool, 20)
        pool.meet((False, True))  # the owner has given one up
        assert pool.living == (False, True)


def test_an_error_of_the_caller_ends_the_run() -> None:
    def done(index: int, answer: Answer) -> None:
        raise ZeroDivisionError

    members = [Member(0.05), Member(0.05)]
    with PoolBackend(members) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.run(calls(1000), done)
        time.sleep(0.2)
        assert sum(len(member.answered) for member in members) < 1000  # which would take 25 s
        run(pool, 10)


def test_errors_that_are_no_failure_of_an_engine_are_raised_as_they_are() -> None:
    class Broken(Member):
        def work(self, take: Take, done: Done) -> None:
            raise KeyError("a mistake")

    with PoolBackend([Member(0.01), Broken()]) as pool, pytest.raises(KeyError, match="a mistake"):
        pool.run(calls(50), lambda *_: None)


def test_members_start_and_end_together() -> None:
    """Side by side, and all are ended where one does not start."""

    everybody = threading.Barrier(4)

    class Together(Member):
        def __enter__(self) -> Member:
            everybody.wait(30)
            return super().__enter__()

    class Absent(Member):
        def __enter__(self) -> Member:
            raise EngineFailure("it did not start")

    members = [Together() for _ in range(4)]
    with PoolBackend(members):
        assert all(member.entered == 1 for member in members)
    assert all(member.entered == 0 for member in members)
    started = Member()
    with pytest.raises(EngineFailure, match="it did not start"), PoolBackend([started, Absent()]):
        pass
    assert started.entered == 0


def test_the_shortest_context_is_the_pools() -> None:
    members = [Member(), Member()]
    members[1].max_length = 60
    assert PoolBackend(members).max_length == 60


class Receiver(Member):
    """An engine with vLLM's API of weight transfer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name in ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update"):
            return lambda *arguments: self.asked.append((name, *arguments))
        raise AttributeError(name)


def test_one_sender_transfers_to_all_members() -> None:
    """A group of the sender and three receivers, each with a rank of its own."""
    members = [Receiver() for _ in range(3)]
    with PoolBackend(members) as pool:
        client = pool.transfer_client()
        assert pool.receivers == 3
        client.init_weight_transfer_engine({"rank_offset": 1, "world_size": 4})
        client.start_weight_update()
        client.update_weights({"names": ["w"]})
        client.finish_weight_update()
    for place, member in enumerate(members):
        assert member.asked == [
            ("init_weight_transfer_engine", {"rank_offset": 1 + place, "world_size": 4}),
            ("start_weight_update",),
            ("update_weights", {"names": ["w"]}),
            ("finish_weight_update", None),
        ]


def test_a_transfer_goes_to_the_member_that_was_replaced_and_then_to_all_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's sender is played: it asks for the size of its group, and opens that in a thread of its own, as vLLM's."""
    groups: list[int] = []

    class Sender:
        @staticmethod
        def trainer_init(receivers: int, client: Any, source: Any) -> Sender:
            groups.append(receivers)
            thread = threading.Thread(target=client.init_weight_transfer_engine, args=({"rank_offset": 1},))
            thread.start()
            thread.join()
            sender = Sender()
            sender.client = client  # type: ignore[attr-defined]
            return sender

        def send_weights(self) -> None:
            self.client.update_weights({})  # type: ignore[attr-defined]

    base, factory = types.ModuleType("base"), types.ModuleType("factory")
    vars(base).update({"ModuleSource": lambda model: model, "WeightSource": object, "ParamMeta": object})
    vars(factory).update({"WeightTransferTrainerFactory": Sender})
    for name, module in {"base": base, "factory": factory}.items():
        monkeypatch.setitem(sys.modules, f"vllm.distributed.weight_transfer.{name}", module)
    members = [Receiver(), Receiver()]
    with PoolBackend(members) as pool:
        model = torch.nn.Linear(1, 1)
        weights = TransferWeights(VLLMEngine(pool), model, pool, lambda: pool.receivers)  # type: ignore[arg-type]
        weights.push(1)
        members[0].deaths, members[1].waits_for = (1,), lambda: members[0].begun >= 1
        run(pool, 20)
        weights.push(2)
    assert groups == [2, 1, 2]
    asked = [[(name, *given) for name, *given in member.asked] for member in members]
    connected = [("init_weight_transfer_engine", {"rank_offset": rank}) for rank in (1, 1, 1)]
    assert asked[0] == [step for call in connected for step in (call, ("update_weights", {}))]
    assert asked[1] == 2 * [("init_weight_transfer_engine", {"rank_offset": 2}), ("update_weights", {})]

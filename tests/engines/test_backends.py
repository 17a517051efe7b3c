"""Which engine works where, and how ranks share servers; no vLLM and no GPU is needed here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.execution import Execution
from harness.engines import backends, group
from harness.engines.backends import Place, Source, engine_options, evaluation_places, needs_process, server_places
from harness.engines.caches import GIB, VLLM_ALONE_SHARE, VLLM_SHARE
from harness.engines.shared import SharedWeights
from harness.models.sizes import model_size
from harness.rollout.pool import PoolBackend
from harness.rollout.process import ProcessBackend
from harness.rollout.server import ServerBackend
from harness.rollout.vllm import NOT_PUSHED, VLLMEngine
from tests.engines.test_checks import execution

FREE, CARD = 60 * GIB, 80 * GIB


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four of them; this process is on the first."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (FREE, CARD))


def on_gpu(*arguments: str) -> Execution:
    return dataclasses.replace(execution(*arguments), device="auto")


def test_an_evaluation_has_an_engine_on_every_gpu(four_gpus: None) -> None:
    assert [(place.device, place.alike) for place in evaluation_places(on_gpu())] == [(i, 1) for i in range(4)]
    two = on_gpu("engine.vllm.evaluation_engines=2")
    assert [place.device for place in evaluation_places(two)] == [0, 1]
    six = evaluation_places(on_gpu("engine.vllm.evaluation_engines=6"))
    assert [(place.device, place.alike) for place in six] == [(0, 2), (1, 2), (2, 1), (3, 1), (0, 2), (1, 2)]
    third = dataclasses.replace(on_gpu(), device="cuda:2")
    assert [place.device for place in evaluation_places(third)] == [2]


def test_on_a_cpu_there_is_one_unless_more_are_asked_for() -> None:
    assert evaluation_places(execution()) == [Place(None)]
    assert evaluation_places(execution("engine.vllm.evaluation_engines=2")) == [Place(None)] * 2


def test_servers_are_where_they_are_put(four_gpus: None) -> None:
    default = on_gpu("engine=server")
    assert server_places(default, "student") == server_places(default, "teacher") == [Place(0)]
    apart = on_gpu("engine=server", "engine.server.devices=[1,2]", "engine.server.teacher_devices=[2,3]")
    assert server_places(apart, "student") == [Place(1, alike=1), Place(2)]  # the teacher's is on the third too
    assert server_places(apart, "teacher") == [Place(2), Place(3, alike=1)]
    assert server_places(apart, "evaluation") == [Place(1, alike=1), Place(2, alike=1)]  # after the training
    beside = on_gpu("engine=server", "engine.server.devices=[0,1]")
    assert server_places(beside, "student") == [Place(0), Place(1, alike=1)]  # the trainer is on the first
    assert server_places(execution("engine=server", "engine.server.devices=[0,1]"), "student") == [Place(None)] * 2


def test_an_engine_alone_takes_what_is_free(four_gpus: None, random_pair: Path) -> None:
    """Less its weights; one beside a trainer takes a quarter of the card. CUDA graphs on a GPU, eager on a CPU."""
    source = Source(str(random_pair / "student"), None, "float32")
    huge = on_gpu("engine=vllm", "engine.vllm.max_sequences=10000000")
    size = model_size(source.name)
    assert size is not None

    def cache(place: Place) -> int:
        return engine_options(huge, source, 2048, "evaluation", place=place).kv_cache_bytes

    assert cache(Place(1, alike=1)) == int(VLLM_ALONE_SHARE * FREE) - 4 * size.parameters
    assert cache(Place(1, alike=2)) == int(VLLM_ALONE_SHARE * FREE) // 2 - 4 * size.parameters
    assert cache(Place(0)) == VLLM_SHARE * CARD
    assert cache(Place(None)) == GIB // 4
    eager = [engine_options(huge, source, 2048, "student", place=place).eager for place in (Place(0), Place(None))]
    assert eager == [False, True]
    asked = on_gpu("engine=vllm", "engine.vllm.eager=true")
    assert engine_options(asked, source, 2048, "student", place=Place(0)).eager


@pytest.mark.parametrize(
    ("arguments", "role", "device", "expected"),
    [
        (["engine=vllm"], "student", None, False),
        (["engine=vllm"], "teacher", 0, False),
        (["engine=vllm"], "student", 1, True),  # in process it would work on the first GPU
        (["engine=vllm", "engine.overlap=true"], "student", None, True),
        (["engine=vllm", "engine.overlap=true"], "teacher", None, True),
        (["engine=vllm", "engine.vllm.sleep=true"], "student", 0, True),
        (["engine=vllm", "engine.vllm.sleep=true"], "evaluation", 0, False),
        (["engine=vllm", "engine.vllm.sleep=true", "engine.teacher=hf"], "student", 0, False),
        (["engine.teacher=vllm", "engine.overlap=true"], "teacher", None, False),
    ],
)
def test_what_conflicts_in_one_process_is_in_two(
    arguments: list[str], role: str, device: int | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert needs_process(execution(*arguments), role, Place(device)) == expected
    monkeypatch.setattr(group, "count", lambda: 2)
    assert needs_process(execution(*arguments), role, Place(device))


class Entered:
    """What is opened, without being started."""

    opened: list[Any]

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = []
        for kind in (ServerBackend, ProcessBackend):
            monkeypatch.setattr(kind, "__enter__", lambda member: self.opened.append(member) or member)
            monkeypatch.setattr(kind, "__exit__", lambda *_: None)
        monkeypatch.setattr(ServerBackend, "url", property(lambda member: member._url or f"http://of-{id(member)}"))


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> Entered:
    return Entered(monkeypatch)


def test_an_evaluation_by_two_processes_is_one_pool(entered: Entered, random_pair: Path, tmp_path: Path) -> None:
    asked = execution("engine.evaluation=vllm", "engine.vllm.evaluation_engines=2", "engine.threads=3")
    source = Source(str(random_pair / "student"), None, "float32")
    with backends.open_backend(asked, source, 64, tmp_path, role="evaluation") as backend:
        assert isinstance(backend, PoolBackend)
    logs = [(member.log.name, member.threads, member.device) for member in entered.opened]
    assert sorted(logs) == [("engine-evaluation-0.log", 1, None), ("engine-evaluation-1.log", 1, None)]


@pytest.mark.parametrize("running", [True, False])
def test_ranks_share_the_servers_of_the_first(
    running: bool, entered: Entered, random_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 starts them, or finds them, and tells the others where they are when they answer."""
    given = "engine.server.urls=[http://a,http://b]" if running else "engine.server.devices=[0,1]"
    asked = execution("engine=server", given)
    source = Source(str(random_pair / "student"), None, "float32")
    told: list[Any] = []
    monkeypatch.setattr(group, "count", lambda: 2)
    monkeypatch.setattr(group, "from_main", lambda value: told.append(value) or value)
    with backends.open_backend(asked, source, 64, tmp_path, role="student") as backend:
        assert isinstance(backend, PoolBackend) and backend._owner
    (urls,) = told
    assert sorted(urls) == sorted(member.url for member in entered.opened) and len(urls) == 2
    assert all((member._process is None) == running for member in entered.opened)
    entered.opened.clear()
    monkeypatch.setattr(group, "index", lambda: 1)
    monkeypatch.setattr(group, "from_main", lambda value: urls)
    with backends.open_backend(asked, source, 64, tmp_path, role="student") as backend:
        assert isinstance(backend, PoolBackend) and not backend._owner
    assert sorted(member.url for member in entered.opened) == sorted(urls)
    assert all(member._process is None for member in entered.opened)


class Push:
    """How rank 0 sends."""

    def __init__(self, engine: VLLMEngine) -> None:
        self.engine, self.sent = engine, []

    def push(self, policy_version: int) -> None:
        self.sent.append(policy_version)
        self.engine.policy_version = policy_version


def test_one_rank_sends_and_all_of_them_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that does not own the pool learns which members live; a version that is there is not pushed again."""
    members: list[Any] = [ServerBackend(None, f"http://{name}", 1, 1) for name in "ab"]
    first, second = VLLMEngine(PoolBackend(members)), VLLMEngine(PoolBackend(members, owner=False))
    first.backend._alive = [True, False]  # type: ignore[attr-defined]
    own = Push(first)
    said: list[Any] = []
    monkeypatch.setattr(group, "from_main", lambda value: said.append(value) or said[0])
    SharedWeights(first, own).push(3)  # type: ignore[arg-type]
    met: list[Any] = []
    monkeypatch.setattr(PoolBackend, "meet", lambda pool, living: met.append((pool, living)))
    follower = SharedWeights(second, None)
    assert second.policy_version == NOT_PUSHED
    follower.push(3)
    assert met == [(second.backend, (True, False))]
    assert (own.sent, first.policy_version, second.policy_version) == ([3], 3, 3)
    follower.push(3)
    assert len(met) == 1 and len(said) == 2

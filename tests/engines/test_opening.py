"""What is opened by role, where no vLLM is needed to see it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.engines import opening
from harness.engines.backends import Source
from harness.engines.checks import by_teachers_servers, urls_of
from harness.engines.opening import open_engine
from harness.engines.shared import SharedWeights
from harness.errors import UserError
from harness.rollout.hf import HFEngine
from harness.rollout.vllm import EngineFailure, VLLMEngine
from harness.rollout.weights import DiskWeights, InProcessWeights, TransferWeights
from tests.conftest import random_model
from tests.engines.test_checks import RUNNING, execution


class Served:
    """A backend that notes what it is told."""

    max_length = 64

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.after_restart: list[Callable[[], None]] = []
        self.takes = True

    def tell(self, method: str, **arguments: Any) -> None:
        self.told.append((method, arguments))
        if method == "harness_load" and not self.takes:
            raise EngineFailure("/collective_rpc was answered with status 500")

    def reset_prefix_cache(self) -> None:
        self.told.append(("reset", {}))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """In place of every vLLM."""
    backend = Served()

    @contextlib.contextmanager
    def opened(*_: object, **__: object) -> Iterator[Served]:
        yield backend

    monkeypatch.setattr(opening, "open_backend", opened)
    return backend


def test_every_role_has_its_own(served: Served, random_pair: Path, tmp_path: Path) -> None:
    source = Source(str(random_pair / "student"), None, "float32")
    asked = execution("engine=vllm", "engine.teacher=hf", "engine.evaluation=server")
    kinds = {}
    for role in ("student", "teacher", "evaluation"):
        with open_engine(asked, source, 64, tmp_path, longest=64, role=role) as found:
            kinds[role] = (type(found.engine), found.backend, found.weights)
    assert {role: kind for role, (kind, _, _) in kinds.items()} == {
        "student": VLLMEngine,
        "teacher": HFEngine,
        "evaluation": VLLMEngine,
    }
    assert kinds["teacher"][1] is None and kinds["student"][1] is kinds["evaluation"][1] is served
    assert kinds["student"][2] is None  # no trainer's model


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["engine=vllm"], InProcessWeights),
        (["engine=vllm", "engine.vllm.weight_sync=disk"], DiskWeights),
        (["engine=server"], DiskWeights),
        (["engine=server", "engine.vllm.weight_sync=transfer"], TransferWeights),
    ],
)
def test_weights_go_as_configured(
    served: Served, arguments: list[str], kind: type, random_pair: Path, tmp_path: Path
) -> None:
    source = Source(str(random_pair / "student"), None, "float32")
    with open_engine(
        execution(*arguments), source, 64, tmp_path, longest=64, role="student", model=random_model(1)
    ) as found:
        assert type(found.weights) is kind and not isinstance(found.weights, SharedWeights)


def test_a_running_server_evaluates_the_checkpoint_whatever_it_held(
    served: Served, random_pair: Path, tmp_path: Path
) -> None:
    """Now and after it was started again; one that cannot take the weights is refused."""
    source = Source(str(random_pair / "student"), None, "float32")
    asked = execution("engine=server", *RUNNING)
    loaded = [("harness_load", {"path": source.name}), ("reset", {})]
    with open_engine(asked, source, 64, tmp_path, longest=64, role="evaluation"):
        assert served.told[1:] == loaded  # after the vocabulary
        served.told.clear()
        for tell in served.after_restart:
            tell()
        assert served.told[1:] == loaded
    served.takes = False
    with (
        pytest.raises(UserError, match=r"127\.0\.0\.1:1 does not take the weights of .* give engine\.evaluation=hf"),
        open_engine(asked, source, 64, tmp_path, longest=64, role="evaluation"),
    ):
        pass


def test_the_teacher_is_evaluated_by_its_own_servers() -> None:
    asked = by_teachers_servers(execution("engine=server", *RUNNING, "engine.server.teacher_devices=[]"))
    assert urls_of(asked, "evaluation") == ["http://127.0.0.1:2"]


def test_a_folder_of_adapters_alone_is_refused(served: Served, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "x"}')
    source = Source(str(tmp_path), None, "float32")
    with (
        pytest.raises(UserError, match=r"adapters only, which engine\.evaluation=vllm does not load; give"),
        open_engine(execution("engine.evaluation=vllm"), source, 64, tmp_path, longest=64, role="evaluation"),
    ):
        pass

"""What engines of vLLM hold on a card of 80 GiB, by hand, at the sizes of the paper's first pair."""

from __future__ import annotations

from typing import Any

import pytest

from harness.config.methods import register_methods
from harness.config.settings import RunConfig
from harness.config.sweep import planned_runs
from harness.engines.caches import GIB, VLLM_ALONE_SHARE
from harness.planning.engines import Held, held_by_vllm
from harness.planning.estimate import memory_of, sizes_of, work_of

CARD = 80.0  # GiB
LENGTH = 18_241  # a prompt, a teacher's prefix, an answer, and one token more
BLOCKS = 144 * 128  # positions: 143 blocks, and one that vLLM keeps
PER_TOKEN = {"student": 28_672, "teacher": 57_344}  # bytes of the cache, bfloat16: 28 layers, 2 and 4 heads of 128


def run_of(*arguments: str) -> RunConfig:
    register_methods()
    (run,) = planned_runs(["hydra.mode=RUN", "setting=deepseek_math", "method=tropd", *arguments])
    return run


def held(run: RunConfig) -> dict[str, Held]:
    return held_by_vllm(run, *sizes_of(run.setting), work_of(run, 8).length + 1, memory_gib=CARD)


def test_as_many_sequences_as_a_quarter_of_the_card_holds() -> None:
    found = held(run_of("engine=vllm", "evaluation=none"))
    assert set(found) == set(PER_TOKEN)
    for role, engine in found.items():
        assert (engine.length, engine.cache, engine.beside, engine.sleeps) == (LENGTH, 20 * GIB, True, False)
        assert engine.sequences == 20 * GIB // (PER_TOKEN[role] * BLOCKS)
    assert [found[role].sequences for role in ("student", "teacher")] == [40, 20]


def test_an_evaluation_has_the_card_alone() -> None:
    """256 sequences of the model's 32,768 positions would take 225 GiB: as many as what is free holds."""
    run = run_of("engine.evaluation=vllm", "evaluation=tropd_paper")
    (engine,) = held(run).values()
    weights = 2 * sizes_of(run.setting)[0].parameters
    assert (engine.beside, engine.weights, engine.length) == (False, weights, 32_768)
    assert engine.cache == int(VLLM_ALONE_SHARE * CARD * GIB) - weights
    assert engine.sequences == engine.cache // (PER_TOKEN["student"] * (32_768 + 128))


@pytest.mark.parametrize(
    ("arguments", "roles"),
    [
        ([], {}),
        (["engine=vllm", "engine.teacher=hf"], {"student": True}),
        (["engine.teacher=server", "engine.server.teacher_devices=[6,7]"], {"teacher": False}),
        (["engine.teacher=server"], {"teacher": True}),
        (["engine=server", "engine.server.urls=[http://a]", "engine.server.teacher_urls=[http://b]"], {}),
    ],
)
def test_who_is_beside_the_trainer(arguments: list[str], roles: dict[str, bool]) -> None:
    found = held(run_of("evaluation=none", *arguments))
    assert {role: engine.beside for role, engine in found.items()} == roles


def test_what_sleeps_counts_in_its_own_phase() -> None:
    def peak(*arguments: str) -> Any:
        run = run_of("engine=vllm", "evaluation=none", "engine.micro_batch_prompts=1", *arguments)
        return memory_of(run, *sizes_of(run.setting), work_of(run, 8), memory_gib=CARD)

    awake, asleep = peak(), peak("engine.vllm.sleep=true")
    engines = held(run_of("engine=vllm", "evaluation=none"))
    assert awake.weights - asleep.weights == sum(engine.total for engine in engines.values())
    moved = {name: asleep.phases[name] - awake.phases[name] for name in awake.phases}
    assert moved == {"rollout": engines["student"].total, "scoring": engines["teacher"].total} | dict.fromkeys(
        ("update", "optimiser"), 0
    )

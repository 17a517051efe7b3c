"""How much is decoded side by side, by hand, at the sizes of real models and cards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.engines.caches import GIB, ROWS, room_beside, rows_per_batch, rows_that_fit, vllm_cache_bytes
from harness.errors import UserError
from harness.evaluation.lm import EngineLM
from harness.evaluation.model import Drawing, EvaluatedModel
from harness.models.loading import load_tokenizer
from harness.models.sizes import DECODE_BYTES, ModelSize, decoded_row_bytes, model_size, size_of
from harness.rollout.vllm import STARTING_SHARE
from tests.conftest import execution, random_model
from tests.engines.test_checks import execution as composed
from tests.rollout.test_in_process import OPTIONS

TEACHER, STUDENT = "Skywork/Skywork-OR1-Math-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
SMALL = "Qwen/Qwen2.5-0.5B-Instruct"


def known(name: str) -> ModelSize:
    size = model_size(name)
    assert size is not None
    return size


def test_a_row_by_hand() -> None:
    """A 7B Qwen2: 28 layers of 4 heads of 128 keys and values, 57,344 bytes a token in bfloat16; one layer's copy more,
    and what the draw of a token takes.
    """
    assert 2 * known(TEACHER).cached_numbers == 57_344
    expected = 57_344 * 8096 * 29 // 28 + DECODE_BYTES * 152_064
    assert decoded_row_bytes(known(TEACHER), 8096, "bfloat16") == expected


@pytest.mark.parametrize("free_gib", [0.001, 8, 60, 10_000])
def test_rows_fit_into_what_is_free(free_gib: float) -> None:
    """512 rows of the teacher's responses would take some 280 GiB, those of a 32k evaluation of the student 460."""
    rows_of = {TEACHER: 9120, STUDENT: 32_768}
    for row in (decoded_row_bytes(known(name), positions, "bfloat16") for name, positions in rows_of.items()):
        assert ROWS * row > 250 * GIB
        rows = rows_that_fit(row, int(free_gib * GIB))
        assert 1 <= rows <= ROWS
        assert rows == 1 or rows * row <= 0.7 * free_gib * GIB
        assert rows == ROWS or (rows + 1) * row > 0.7 * free_gib * GIB


def test_an_engine_takes_as_many_rows_as_its_card_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less what is yet to come; what is asked for is taken as it is, and a CPU takes them all."""
    model = random_model(1)
    assert rows_per_batch(execution(), model, 512) == ROWS
    assert rows_per_batch(execution(rows_per_batch=7), model, 512) == 7
    row = decoded_row_bytes(size_of(model.config, model.num_parameters()), 512, "float32")
    card = SimpleNamespace(
        device=torch.device("cuda", 1), config=model.config, dtype=torch.float32, num_parameters=model.num_parameters
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {1: (100 * row + 99, 10**12)}[device.index])
    assert rows_per_batch(execution(), card, 512) == 70  # type: ignore[arg-type]
    assert rows_per_batch(execution(), card, 512, later_bytes=50 * row) == 35  # type: ignore[arg-type]
    assert rows_per_batch(execution(), card, 512, later_bytes=100 * row) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "longest", "card_gib", "gib"),
    [
        (SMALL, 32_768, 24, 6.0),  # 0.38 a sequence, 256 of them: a quarter of the card
        (TEACHER, 131_072, 80, 20.0),
        (TEACHER, 131_072, 24, 7.007),  # one sequence, and a block: more than a quarter of 24
        (SMALL, 512, 80, 1.875),  # 256 sequences of 5 blocks of 128 tokens of 12,288 bytes
        (SMALL, 2048, None, 0.25),  # on a CPU
    ],
)
def test_a_cache_of_vllm(name: str, longest: int, card_gib: int | None, gib: float) -> None:
    options = composed("engine=vllm").vllm
    assert options is not None
    card = None if card_gib is None else card_gib * GIB
    found = vllm_cache_bytes(options, known(name).cached_numbers, "bfloat16", longest, room=room_beside(card))
    assert found / GIB == pytest.approx(gib, rel=0.001)


def test_a_cache_that_holds_no_sequence_is_refused() -> None:
    options = composed("engine=vllm", "engine.vllm.kv_cache_gib=0.25").vllm
    assert options is not None
    numbers = known(TEACHER).cached_numbers
    assert vllm_cache_bytes(options, numbers, "bfloat16", 2048, room=GIB) == GIB // 4
    with pytest.raises(UserError, match=r"kv_cache_gib=0\.25 does not hold one sequence of 131072 tokens, .* 7\.01"):
        vllm_cache_bytes(options, numbers, "bfloat16", 131_072, room=GIB)


def test_vllm_is_not_asked_to_find_the_card_empty() -> None:
    """Its default wants 92 % of the card free, also where the cache has a given size; a trainer is on it already."""
    assert OPTIONS.arguments()["gpu_memory_utilization"] == STARTING_SHARE < 0.05
    assert "gpu_memory_utilization" not in dataclasses.replace(OPTIONS, on_cpu=True).arguments()


@pytest.mark.parametrize("short", [0, 1])
def test_a_prompt_that_the_engine_was_not_opened_for_is_refused(random_pair: Path, short: int) -> None:
    """Its answer would be cut to what is left, silently."""
    tokenizer = load_tokenizer(str(random_pair / "student"))
    arguments = ("Start with 3 .", {"max_gen_toks": 8, "until": []})
    instance: object = SimpleNamespace(args=arguments, task_name="t", doc_id=0, doc={"id": "seven"})
    room = len(tokenizer.encode(arguments[0])) + 8 - short
    nobody: object = None
    lm = EngineLM(EvaluatedModel(nobody, tokenizer, 2048, (1,), opened_for=room), Drawing(0))  # type: ignore[arg-type]
    if not short:
        assert lm._plan([instance])  # type: ignore[list-item]
        return
    with pytest.raises(UserError, match=r"t/seven .* opened for; evaluate this task with engine=hf"):
        lm._plan([instance])  # type: ignore[list-item]

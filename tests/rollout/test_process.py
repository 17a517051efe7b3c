"""An engine in a process of its own, played by tests/rollout/fake_engine.py: what goes over the socket, and failures.

Every start of such a process imports torch, so tests that leave the engine alive share one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from harness.errors import UserError
from harness.files import ROOT
from harness.rollout import handover
from harness.rollout.process import ProcessBackend
from harness.rollout.vllm import Answer, Call, EngineFailure, EngineOptions, child_environment
from tests.rollout.fake_engine import digest, expected
from tests.vllm.conftest import processes_of_group, processes_with

SLOTS = 4
AGAIN = "starting it once more"
GROUP = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "ACCELERATE_USE_FSDP"]


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.rollout.process.PROGRAM", "tests.rollout.fake_engine")


def backend(folder: Path, limit_s: float = 60) -> ProcessBackend:
    options = EngineOptions(str(folder), None, "float32", 2**20, SLOTS, 8, True, True, 77)
    return ProcessBackend(options, threads=1, device=None, log=folder / "logs" / "engine.log", start_limit_s=limit_s)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessBackend]:
    """One that all tests may use that leave it alive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.rollout.process.PROGRAM", "tests.rollout.fake_engine")
        for name in GROUP:
            patch.setenv(name, "1")
        folder = tmp_path_factory.mktemp("engine")
        with backend(folder) as opened:
            yield opened
        assert (folder / "closed").exists()  # it ended by itself when the connection was closed


def calls(count: int, **options: object) -> list[Call]:
    """The options are those of the third call."""
    return [Call((1, 2), {"seed": 10 * i, **(options if i == 2 else {})}) for i in range(count)]


def answers(engine: ProcessBackend, asked: list[Call]) -> dict[int, Answer]:
    found: dict[int, Answer] = {}
    engine.run(asked, lambda index, answer: found.update({index: answer}))
    return found


def noted(engine: ProcessBackend) -> list[str]:
    """What the engine was asked since the last look."""
    path = Path(engine.options.source) / "noted"
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("")
    return lines


def exactly(found: Answer, wanted: Answer) -> bool:
    """Every token, and every bit of the log-probs."""
    assert found.written is not None and wanted.written is not None
    pairs = [(getattr(found.written, name), getattr(wanted.written, name)) for name in ("chosen", "topk_ids", "topk")]
    same = all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)
    return found.token_ids == wanted.token_ids and same


def test_answers_come_over_exactly(engine: ProcessBackend) -> None:
    found = answers(engine, calls(9))
    assert engine.max_length == 77 and sorted(found) == list(range(9))
    assert all(exactly(found[i], expected(10 * i, bias=0)) for i in range(9))


def test_the_engine_has_as_many_calls_as_it_works_on(engine: ProcessBackend) -> None:
    """Not all nine at once, and a new one as soon as one is answered, not when all four are."""
    noted(engine)
    order: list[int] = []
    asked = [Call((1,), {"seed": i, "seconds": 0.1}) for i in range(9)]
    engine.run(asked, lambda index, _: order.append(index))
    at_work = [int(line.split()[-1]) for line in noted(engine) if line.startswith("at work")]
    assert max(at_work) == SLOTS and min(at_work[:6]) >= SLOTS - 1  # a new one comes within a step
    assert order[0] == 3 and sorted(order) == list(range(9))  # the fake answers the last one first


def test_a_command_may_come_while_the_engine_ends_its_last_step(engine: ProcessBackend) -> None:
    for _ in range(2):
        assert len(answers(engine, [Call((1,), {"seed": 1, "seconds_after": 0.5})])) == 1
        assert engine.tell("environment")["OMP_NUM_THREADS"]


def test_large_answers_and_large_calls_do_not_wait_for_each_other(engine: ProcessBackend) -> None:
    """Both are larger than what a socket holds, and the engine answers two before it looks for more."""
    first = engine.pid
    sizes = {"tokens": 50_000, "seconds_after": 0.1}
    asked = [Call(tuple(range(200_000)), {"seed": i, "looks": i % 2 == 0, **sizes}) for i in range(9)]
    found = answers(engine, asked)
    assert all(exactly(found[i], expected(i, bias=0, tokens=50_000)) for i in range(9)) and engine.pid == first


def test_bad_input_stays_bad_input(engine: ProcessBackend) -> None:
    with pytest.raises(UserError, match="as it was told"):
        answers(engine, calls(4, do="refuse"))
    assert len(answers(engine, calls(4))) == 4


def test_an_error_of_the_caller_leaves_the_engine_usable(engine: ProcessBackend) -> None:
    def done(index: int, answer: Answer) -> None:
        raise ZeroDivisionError

    first = engine.pid
    noted(engine)
    with pytest.raises(ZeroDivisionError):
        engine.run([Call((1,), {"seed": i, "seconds": 0.1}) for i in range(50, 54)], done)
    assert len([line for line in noted(engine) if line.startswith("answered")]) < 4
    found = answers(engine, calls(3))
    assert all(exactly(found[i], expected(10 * i, bias=0)) for i in range(3)) and engine.pid == first


def test_the_trainers_process_group_is_not_the_engines(engine: ProcessBackend) -> None:
    found = engine.tell("environment")
    assert found["OMP_NUM_THREADS"] and not set(GROUP) & set(found)


TENSORS = {
    "float32": torch.randn(7, 5, generator=torch.Generator().manual_seed(0)),
    "bfloat16": torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "transposed": torch.arange(12.0).reshape(3, 4).T,
    "number": torch.tensor(2.5, dtype=torch.float64),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "large": torch.arange(1000, dtype=torch.int32),
}


def test_weights_come_over_exactly_in_bounded_chunks(engine: ProcessBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = handover.send_chunk

    def watched(connection: object, chunk: list[tuple[str, torch.Tensor]], *others: object) -> None:
        sizes.append(sum(tensor.nbytes for _, tensor in chunk))
        original(connection, chunk, *others)  # type: ignore[arg-type]

    monkeypatch.setattr("harness.rollout.process.send_chunk", watched)
    monkeypatch.setattr("harness.rollout.process.chunks_of", lambda weights: handover.chunks_of(weights, limit=250))
    assert engine.tell("harness_load", weights=iter(TENSORS.items())) == len(TENSORS)
    assert engine.tell("told") == {name: digest(tensor) for name, tensor in TENSORS.items()}
    assert sizes == [140 + 24 + 48 + 8 + 5, 4000]  # what a tensor alone is too large for goes alone
    assert not any(tensor.is_shared() for tensor in TENSORS.values())  # the trainer's own stay where they are


def test_an_error_while_weights_are_made_is_the_trainers(engine: ProcessBackend) -> None:
    def broken() -> Iterator[tuple[str, torch.Tensor]]:
        yield "bias", torch.tensor(5)
        raise MemoryError("no room to gather")

    with pytest.raises(MemoryError, match="no room to gather"):
        engine.tell("harness_load", weights=broken())
    assert engine.tell("harness_load", weights=[("bias", torch.tensor(6))]) == 1
    assert answers(engine, calls(1))[0].token_ids[0] == 6


def test_an_engine_that_cannot_start_says_where_its_words_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "refuses").touch()
    with pytest.raises(UserError, match="does not start"), backend(tmp_path):
        pass
    monkeypatch.setattr("harness.rollout.process.PROGRAM", "tests.rollout.no_such_program")
    with pytest.raises(EngineFailure, match=r"ended with status 1; see .*engine\.log"), backend(tmp_path):
        pass
    assert "no_such_program" in (tmp_path / "logs" / "engine.log").read_text()


@pytest.mark.parametrize(
    ("visible", "device", "seen"), [(None, 1, "1"), ("4,5,6", 1, "5"), ("GPU-a, GPU-b", 1, "GPU-b"), ("3", None, "3")]
)
def test_the_device_is_one_of_those_that_this_process_sees(
    visible: str | None, device: int | None, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert child_environment(1, device)["CUDA_VISIBLE_DEVICES"] == seen


def test_a_killed_engine_loses_nothing_and_the_second_failure_is_the_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with backend(tmp_path) as engine:
        engine.after_restart.append(lambda: engine.tell("harness_load", weights=[("bias", torch.tensor(1000))]))
        first = engine.pid
        found = answers(engine, calls(9, do="once:die", seconds=1))  # time to send the answer before
        assert first is not None and engine.pid != first and processes_of_group(first) == []
        said = capfd.readouterr().err
        assert said == f"vLLM engine: the engine's process was killed by SIGKILL; see {engine.log}; {AGAIN}\n"
        biases = {i: 0 if found[i].token_ids[0] < 1000 else 1000 for i in found}
        assert biases[3] == 0 and biases[2] == 1000 and sorted(found) == list(range(9))
        assert all(exactly(found[i], expected(10 * i, bias=biases[i])) for i in found)
        again = [line for line in noted(engine) if line.startswith("answered")]
        assert len(again) == len(set(again)) == 9
        with pytest.raises(EngineFailure, match="failed: ValueError: as it was told; see"):
            answers(engine, calls(4, do="fail"))
        assert engine.pid is None  # what it might still say would be taken for an answer to something else
        with pytest.raises(EngineFailure, match="not running"):
            answers(engine, calls(1))


def test_silence_ends_at_its_limit_and_a_long_call_is_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Four calls of a third of the limit each: every answer is a sign of life."""
    limit_s = 60
    with backend(tmp_path, limit_s) as engine:
        engine._limit_s = limit_s = 3
        assert len(answers(engine, [Call((1,), {"seed": i, "seconds": 1}) for i in range(4)])) == 4
        assert capfd.readouterr().err == ""
        stops = iter([(0, Call((1,), {"seed": 1, "do": "stop"}))])
        began = time.monotonic()
        with pytest.raises(EngineFailure, match="said nothing for 3 s"):
            engine.work(lambda: next(stops, None), lambda *_: None)
        assert limit_s <= time.monotonic() - began < 10 * limit_s


PARENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored
import sys
from pathlib import Path
from tests.rollout import test_process
from harness.rollout import process
process.PROGRAM = "tests.rollout.fake_engine"
engine = test_process.backend(Path(sys.argv[1]))
engine._start()
print("ready", flush=True)
from harness.rollout.vllm import Call
engine.run([Call((1,), {"seed": 1, "seconds": 60})], print)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_engine_outlives_its_parent(tmp_path: Path, end: signal.Signals) -> None:
    """It is in the middle of a call, where it cannot hear that the connection is closed."""
    mark = f"{tmp_path}-mark"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OF_THIS_TEST": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
    wait_for(lambda: (tmp_path / "noted").exists())
    assert len(processes_with(mark)) >= 3  # the parent, its watchdog, the engine
    parent.send_signal(end)
    parent.wait(30)
    wait_for(lambda: processes_with(mark) == [])


def wait_for(condition: Callable[[], bool], limit_s: float = 30) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)

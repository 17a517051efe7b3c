"""Weights between two processes on one GPU, with torch's CUDA functions played: no GPU was at hand. What goes through
shared memory is in test_process.py, between two processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.rollout.handover import HostChunk, chunks_of, receive_chunk, send_chunk


def on_gpu(index: int) -> Any:
    """Of a tensor as much as is looked at."""
    tensor = SimpleNamespace(is_cuda=True, device=torch.device("cuda", index), nbytes=4)
    tensor.contiguous = lambda: tensor
    return tensor


def test_handles_are_rebuilt_on_the_one_device_that_the_receiver_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's reduce_tensor names the sender's device in the seventh place (torch/multiprocessing/reductions.py)."""
    rebuilt: list[tuple[Any, ...]] = []
    reductions = "torch.multiprocessing.reductions"
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr(f"{reductions}.reduce_tensor", lambda tensor: (None, (*"abcdef", tensor.device.index, *"gh")))
    monkeypatch.setattr(f"{reductions}.rebuild_cuda_tensor", lambda *arguments: rebuilt.append(arguments))
    ours, theirs = Pipe()
    send_chunk(ours, [("w", on_gpu(3)), ("v", on_gpu(3))], pid=0, device=3)
    assert [name for name, _ in receive_chunk(theirs, theirs.recv())] == ["w", "v"]
    assert rebuilt == [(*"abcdef", 0, *"gh")] * 2


def test_the_seventh_argument_is_the_device() -> None:
    import inspect

    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    from harness.rollout.handover import DEVICE_ARGUMENT

    assert list(inspect.signature(rebuild_cuda_tensor).parameters)[DEVICE_ARGUMENT] == "storage_device"


@pytest.mark.parametrize("device", [None, 0])
def test_on_another_device_weights_go_through_memory(device: int | None) -> None:
    ours, theirs = Pipe()
    send_chunk(ours, [("w", torch.arange(3.0))], pid=0, device=device)
    message = theirs.recv()
    assert isinstance(message, HostChunk)
    ((name, weight),) = receive_chunk(theirs, message)
    assert name == "w" and weight.tolist() == [0, 1, 2]


def test_chunks_are_made_as_they_are_taken() -> None:
    """Layer by layer: the third tensor is not gathered before the first two are taken."""
    made: list[int] = []

    def weights() -> Iterator[tuple[str, torch.Tensor]]:
        for index in range(5):
            made.append(index)
            yield str(index), torch.zeros(10)

    chunks = chunks_of(weights(), limit=80)
    assert [name for name, _ in next(chunks)] == ["0", "1"] and made == [0, 1, 2]
    assert [[name for name, _ in chunk] for chunk in chunks] == [["2", "3"], ["4"]]

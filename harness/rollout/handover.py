"""Weights from one process to another on the same machine, in bounded chunks and without a file.

    on the CPU    a chunk is copied into memory that both processes see (memfd: not limited by the size of /dev/shm)
    on one GPU    a chunk is a list of CUDA IPC handles: nothing is copied before the engine copies into its own weights

A chunk is never used again for the next: vLLM keeps the tensors that it was given until all of their layer are there.
Both processes must see the connection as a Unix socket, over which the memory's file descriptor goes.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 2**28  # of weights on their way, at most; a larger tensor goes alone
ALIGNMENT = 64  # bytes; any type may begin there
DEVICE_ARGUMENT = 6  # of torch's rebuild_cuda_tensor: the index of the device in the process that rebuilds

Named = tuple[str, Tensor]


@dataclass(frozen=True)
class Piece:
    """A tensor's place in shared memory."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes


@dataclass(frozen=True)
class HostChunk:
    """Tensors in shared memory; the memory's file descriptor follows the message."""

    pieces: list[Piece]
    size: int  # bytes


@dataclass(frozen=True)
class DeviceChunk:
    """Tensors in the memory of a GPU that sender and receiver share: their names and CUDA IPC handles."""

    handles: list[tuple[str, tuple[Any, ...]]]


def chunks_of(weights: Iterable[Named], limit: int = CHUNK_BYTES) -> Iterator[list[Named]]:
    """The weights in their order, in lists of at most `limit` bytes or of one tensor."""
    chunk: list[Named] = []
    for name, weight in weights:
        if chunk and sum(tensor.nbytes for _, tensor in chunk) + weight.nbytes > limit:
            yield chunk
            chunk = []
        chunk.append((name, weight))
    if chunk:
        yield chunk


def send_chunk(connection: Connection, chunk: list[Named], pid: int, device: int | None) -> None:
    """Sends a chunk; on a GPU its tensors must live on until the receiver has asked for the next one.

    Args: pid: of the receiver; device: of the receiver, as this process counts them; None: it works on a CPU.
    """
    if device is not None and all(weight.is_cuda and weight.device.index == device for _, weight in chunk):
        connection.send(_by_handles(chunk))
        return
    pieces, size = [], 0
    for name, weight in chunk:
        pieces.append(Piece(name, weight.dtype, tuple(weight.shape), size))
        size += -(-weight.nbytes // ALIGNMENT) * ALIGNMENT
    memory = os.memfd_create("harness-weights")
    try:
        os.ftruncate(memory, size)
        for (_, weight), place in zip(chunk, _views(memory, pieces, size), strict=True):
            place.copy_(weight)
        connection.send(HostChunk(pieces, size))
        send_handle(connection, memory, pid)
    finally:
        os.close(memory)


def receive_chunk(connection: Connection, chunk: HostChunk | DeviceChunk) -> list[Named]:
    """The tensors of a chunk whose message has come. They live as long as they are used, whatever the sender does."""
    if isinstance(chunk, DeviceChunk):
        return _from_handles(chunk)
    memory = recv_handle(connection)
    try:
        names = [piece.name for piece in chunk.pieces]
        return list(zip(names, _views(memory, chunk.pieces, chunk.size), strict=True))
    finally:
        os.close(memory)


def release(device: int | None) -> None:
    """On the sender's side, after the last chunk: frees what was gathered on a GPU for the receiver; never run."""
    if device is not None:
        torch.cuda.ipc_collect()


def _views(memory: int, pieces: list[Piece], size: int) -> list[Tensor]:
    """The shared memory as tensors, which keep the mapping alive."""
    whole = torch.frombuffer(mmap.mmap(memory, size), dtype=torch.uint8)
    views = []
    for piece in pieces:
        count = torch.Size(piece.shape).numel() * piece.dtype.itemsize
        views.append(whole[piece.begin : piece.begin + count].view(piece.dtype).view(piece.shape))
    return views


def _by_handles(chunk: list[Named]) -> DeviceChunk:
    """As vLLM's ipc engine exports them (vllm/distributed/weight_transfer/ipc_engine.py); never run."""
    from torch.multiprocessing.reductions import reduce_tensor

    torch.cuda.synchronize()  # what was enqueued to make them is done
    return DeviceChunk([(name, reduce_tensor(weight.contiguous())[1]) for name, weight in chunk])


def _from_handles(chunk: DeviceChunk) -> list[Named]:
    """As vLLM's ipc engine rebuilds them: on the one device that this process sees; never run."""
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    weights = []
    for name, handle in chunk.handles:
        arguments = list(handle)
        arguments[DEVICE_ARGUMENT] = torch.cuda.current_device()
        weights.append((name, rebuild_cuda_tensor(*arguments)))
    return weights

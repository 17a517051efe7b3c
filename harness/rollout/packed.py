"""Calls and answers as bytes: what goes between a server that has `harness.rollout.packed_route` and its client.

A message is a head (how many bytes follow, and their CRC32), a description in JSON, and the arrays that it describes,
little-endian, one after another. A log-prob stays the float32 that the engine gave. A token id takes as many bytes as
the largest of its array needs. JSON takes 70 to 80 bytes for what are 6 or 7 here.

Shape legend: n positions, k most probable tokens at each.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from harness.rollout.vllm import Answer, Call, EngineFailure, Logprobs

PATH = "/harness/answers"  # GET: what the server speaks; POST: calls, answered one message each as they are done
SPOKEN = {"harness_answers": 1}  # the version of this form
INSTANCE = "instance"  # what a server says beside it: which one it is; who asks another one is refused (status 409)
_HEAD = struct.Struct("<QI")  # bytes that follow, their CRC32
_DESCRIPTION = struct.Struct("<I")  # bytes of the JSON

Read = Callable[[int], bytes]  # as many bytes as asked for, fewer only at the end of what there is


def pack_message(said: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> bytes:
    """A message of what JSON can say, and arrays."""
    arrays = [np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")) for array in arrays]
    shapes = [[array.dtype.str, list(array.shape)] for array in arrays]
    description = json.dumps({"said": said, "arrays": shapes}).encode()
    body = b"".join([_DESCRIPTION.pack(len(description)), description, *(array.tobytes() for array in arrays)])
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def read_message(source: Read) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The next message; ValueError if it is cut short or not what was sent."""
    head = source(_HEAD.size)
    if len(head) != _HEAD.size:
        raise ValueError("the packed answers end too early")
    size, checksum = _HEAD.unpack(head)
    body = source(size)
    if len(body) != size:
        raise ValueError(f"a packed answer ends after {len(body)} of {size} bytes")
    if zlib.crc32(body) != checksum:
        raise ValueError("a packed answer is not what was sent: its checksum is another")
    (length,) = _DESCRIPTION.unpack_from(body)
    begin = _DESCRIPTION.size + length
    described = json.loads(body[_DESCRIPTION.size : begin])
    arrays = []
    for name, shape in described["arrays"]:
        dtype, count = np.dtype(name), math.prod(shape)
        arrays.append(np.frombuffer(body, dtype, count, begin).reshape(shape).astype(dtype.newbyteorder("=")))
        begin += count * dtype.itemsize
    if begin != size:
        raise ValueError(f"a packed answer has {size} bytes and describes {begin}")
    return described["said"], arrays


def shrink(ids: np.ndarray) -> np.ndarray:
    """Token ids [...] as bytes [..., w], with w the fewest (1 to 4) that hold the largest."""
    width = max(1, (int(ids.max(initial=0)).bit_length() + 7) // 8)
    return np.ascontiguousarray(ids, dtype="<u4")[..., None].view(np.uint8)[..., :width]


def widen(small: np.ndarray) -> np.ndarray:
    """The ids again, int64 [...], from bytes [..., w]."""
    full = np.zeros((*small.shape[:-1], 4), dtype=np.uint8)
    full[..., : small.shape[-1]] = small
    return full.view("<u4")[..., 0].astype(np.int64)


def pack_calls(calls: Sequence[Call]) -> bytes:
    """What is asked for, in one message."""
    ids = np.concatenate([np.asarray(call.prompt_ids, dtype=np.int64) for call in calls])
    lengths = [len(call.prompt_ids) for call in calls]
    return pack_message({"options": [dict(call.options) for call in calls], "lengths": lengths}, [shrink(ids)])


def read_calls(source: Read) -> list[Call]:
    """The inverse of `pack_calls`; ValueError as of `read_message`."""
    said, (small,) = read_message(source)
    parts = np.split(widen(small), np.cumsum(said["lengths"])[:-1])
    return [Call(part.tolist(), options) for part, options in zip(parts, said["options"], strict=True)]


def pack_answer(index: int, answer: Answer) -> bytes:
    """The answer to a call."""
    arrays = [shrink(np.asarray(answer.token_ids, dtype=np.int64))]
    for found in (answer.written, answer.prompt):
        if found is not None:
            arrays += [found.chosen, shrink(found.topk_ids), found.topk]
    given = [answer.written is not None, answer.prompt is not None]
    return pack_message({"call": index, "stopped": answer.stopped, "given": given}, arrays)


def pack_refusal(index: int, why: str) -> bytes:
    """In place of an answer to a call."""
    return pack_message({"call": index, "refused": why}, [])


def read_answers(source: Read, calls: Sequence[Call]) -> Iterator[tuple[int, Answer]]:
    """The answers to `calls`, each with its place among them, in the order in which they come.

    EngineFailure if they end before each call has one, are not what was sent, or have other shapes than were asked for.
    """
    missing = set(range(len(calls)))
    while missing:
        try:
            said, arrays = read_message(source)
            index = said["call"]
            missing.remove(index)
            if "refused" in said:
                raise EngineFailure(f"the vLLM server did not answer: {said['refused']}")
            answer = _answer(said, arrays, calls[index])
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise EngineFailure(f"the vLLM server's answer cannot be read: {type(error).__name__}: {error}") from error
        yield index, answer


def _answer(said: Mapping[str, Any], arrays: Sequence[np.ndarray], call: Call) -> Answer:
    ids, *remaining = arrays
    tokens = widen(ids).tolist()
    parts: list[Logprobs | None] = []
    for name, given, positions in zip(
        ("logprobs", "prompt_logprobs"), said["given"], (len(tokens), len(call.prompt_ids) - 1), strict=True
    ):
        top_k = call.options.get(name)
        if given != (top_k is not None):
            raise ValueError(f"{name} were {'not ' if given else ''}asked for")
        parts.append(None if top_k is None else _logprobs(remaining[:3], positions, top_k))
        remaining = remaining[3 if given else 0 :]
    return Answer(tuple(tokens), said["stopped"], *parts)


def _logprobs(arrays: Sequence[np.ndarray], positions: int, top_k: int) -> Logprobs:
    chosen, ids, values = arrays
    found = Logprobs(chosen, widen(ids), values)
    shapes = (found.chosen.shape, found.topk_ids.shape, found.topk.shape)
    if shapes != ((positions,), (positions, top_k), (positions, top_k)):
        raise ValueError(f"log-probs of the shapes {shapes} for {positions} tokens and the {top_k} most probable")
    return found

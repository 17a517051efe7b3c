"""Calls and answers as bytes, and a client whose server sends too little, too much, garbage or nothing."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from harness.rollout import packed
from harness.rollout.server import ServerBackend
from harness.rollout.vllm import Answer, Call, EngineFailure, Logprobs

SCORED = Call((5, 6, 7, 70_000), {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 2})
WRITTEN = Call((5,), {"max_tokens": 2, "seed": 2**63, "stop_token_ids": [1], "logprobs": 0})
BARE = Call((5, 6), {"max_tokens": 1})


def logprobs(positions: int, top_k: int) -> Logprobs:
    """Of every sort of float32: not a decimal fraction, a negative zero, minus infinity, a subnormal one."""
    rows = np.resize(np.float32([-0.1, -0.0, -np.inf, -1e-42, -20 / 3]), (positions, top_k))
    ids = np.resize(np.int64([3, 151_935, 255, 256, 65_536]), (positions, top_k))
    return Logprobs(np.resize(np.float32([-1 / 3, -1e-42]), positions), ids, rows)


ANSWERS = (
    (SCORED, Answer((9,), False, None, logprobs(3, 2))),
    (WRITTEN, Answer((70_000, 1), True, logprobs(2, 0), None)),
    (BARE, Answer((), False, None, None)),
)


def same(a: Logprobs | None, b: Logprobs | None) -> bool:
    """To the last bit."""
    if a is None or b is None:
        return a is b
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("chosen", "topk_ids", "topk")]
    return all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)


def equal(a: Answer, b: Answer) -> bool:
    return (
        (a.token_ids, a.stopped) == (b.token_ids, b.stopped) and same(a.written, b.written) and same(a.prompt, b.prompt)
    )


def test_answers_come_back_to_the_last_bit_in_any_order() -> None:
    calls = [call for call, _ in ANSWERS]
    sent = b"".join(packed.pack_answer(index, ANSWERS[index][1]) for index in (2, 0, 1))
    found = list(packed.read_answers(io.BytesIO(sent).read, calls))
    assert [index for index, _ in found] == [2, 0, 1]
    assert all(equal(answer, ANSWERS[index][1]) for index, answer in found)
    for _, answer in found:
        for part in (answer.written, answer.prompt):
            assert part is None or part.topk.flags.writeable  # torch.from_numpy warns of what is not


def test_calls_come_back() -> None:
    calls = [call for call, _ in ANSWERS]
    found = packed.read_calls(io.BytesIO(packed.pack_calls(calls)).read)
    assert [(tuple(call.prompt_ids), call.options) for call in found] == [(c.prompt_ids, c.options) for c in calls]


@pytest.mark.parametrize("largest,width", [(255, 1), (256, 2), (65_535, 2), (65_536, 3), (2**24, 4), (2**32 - 1, 4)])
def test_ids_take_the_bytes_of_the_largest(largest: int, width: int) -> None:
    ids = np.array([[0, 1], [largest, 2]])
    assert packed.shrink(ids).shape == (2, 2, width)
    assert packed.widen(packed.shrink(ids)).tolist() == ids.tolist()
    assert packed.widen(packed.shrink(ids[:0])).shape == (0, 2)


def test_ids_by_hand() -> None:
    """258 = 2 + 1·256, lowest byte first."""
    assert packed.shrink(np.array([1, 258])).tolist() == [[1, 0], [2, 1]]


def test_a_body_that_is_cut_short_anywhere() -> None:
    sent = packed.pack_answer(0, ANSWERS[0][1])
    for length in range(len(sent)):
        with pytest.raises(EngineFailure, match="cannot be read"):
            list(packed.read_answers(io.BytesIO(sent[:length]).read, [SCORED]))


def test_a_garbled_body_is_noticed_whatever_byte_it_is() -> None:
    sent = packed.pack_answer(0, ANSWERS[0][1])
    for place in range(len(sent)):
        garbled = bytearray(sent)
        garbled[place] ^= 0x10
        with pytest.raises(EngineFailure):
            list(packed.read_answers(io.BytesIO(bytes(garbled)).read, [SCORED]))


WRONG = {
    "a position is missing": packed.pack_answer(0, Answer((9,), False, None, logprobs(2, 2))),
    "a candidate is missing": packed.pack_answer(0, Answer((9,), False, None, logprobs(3, 1))),
    "no log-probs": packed.pack_answer(0, Answer((9,), False, None, None)),
    "too many log-probs": packed.pack_answer(0, Answer((9,), False, logprobs(1, 2), logprobs(3, 2))),
    "of a call that was not made": packed.pack_answer(1, ANSWERS[0][1]),
    "no description": packed.pack_message({"call": 0}, []),
    "no arrays": packed.pack_message({"call": 0, "stopped": False, "given": [False, True]}, []),
    "no mapping": packed.pack_message(7, []),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("wrong", WRONG)
def test_another_answer_than_was_asked_for(wrong: str) -> None:
    with pytest.raises(EngineFailure, match="cannot be read"):
        list(packed.read_answers(io.BytesIO(WRONG[wrong]).read, [SCORED]))


def test_the_same_answer_twice() -> None:
    with pytest.raises(EngineFailure, match="cannot be read"):
        list(packed.read_answers(io.BytesIO(2 * packed.pack_answer(0, ANSWERS[0][1])).read, [SCORED, SCORED]))


def test_a_refused_call_says_why() -> None:
    with pytest.raises(EngineFailure, match="max_logprobs is 8"):
        list(packed.read_answers(io.BytesIO(packed.pack_refusal(0, "ValueError: max_logprobs is 8")).read, [SCORED]))


@dataclass
class PackedServer:
    """Speaks the packed form. `sends` makes the bytes of one reply out of the messages that a healthy one has."""

    sends: Callable[[list[bytes]], Iterator[bytes]] = iter
    asked: list[list[Call]] = field(default_factory=list)
    instance: str = "one"

    def __post_init__(self) -> None:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                spoken = {**packed.SPOKEN, packed.INSTANCE: fake.instance}
                found = spoken if self.path == packed.PATH else {"data": [{"id": "m", "max_model_len": 100}]}
                text = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_POST(self) -> None:
                if self.path != f"{packed.PATH}?{packed.INSTANCE}={fake.instance}":
                    self.send_error(409)
                    return
                calls = packed.read_calls(io.BytesIO(self.rfile.read(int(self.headers["Content-Length"]))).read)
                fake.asked.append(calls)
                messages = [packed.pack_answer(i, answer_to(call)) for i, call in enumerate(calls)]
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                with contextlib.suppress(OSError):
                    for part in fake.sends(messages[::-1]):
                        self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                        self.wfile.flush()
                self.close_connection = True  # without the last chunk: as of a server that dies

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def answer_to(call: Call) -> Answer:
    """The prompt's first id as the token."""
    return Answer((call.prompt_ids[0],), True, None, logprobs(len(call.prompt_ids) - 1, 2))


@pytest.fixture
def server() -> Iterator[PackedServer]:
    fake = PackedServer()
    yield fake
    fake.http.shutdown()


CALLS = [Call((i, 0, 0), SCORED.options) for i in range(5)]


def answered(server: PackedServer, done: Callable[[int, Answer], None], time_limit_s: float = 5.0) -> None:
    with ServerBackend(None, server.url, start_limit_s=5.0, time_limit_s=time_limit_s) as backend:
        backend.run(CALLS, done)


def test_all_calls_go_in_one_request(server: PackedServer) -> None:
    found: dict[int, Answer] = {}
    answered(server, found.__setitem__)
    assert list(found) == [4, 3, 2, 1, 0] and [len(calls) for calls in server.asked] == [5]
    assert all(equal(answer, answer_to(CALLS[index])) for index, answer in found.items())


def cut(messages: list[bytes]) -> Iterator[bytes]:
    """Two answers and half a third."""
    yield from (*messages[:2], messages[2][:30])


def garbled(messages: list[bytes]) -> Iterator[bytes]:
    """Two answers and noise."""
    yield from (*messages[:2], bytes(range(256)))


def silent(messages: list[bytes]) -> Iterator[bytes]:
    """Two answers and nothing."""
    yield from messages[:2]
    time.sleep(20)


@pytest.mark.parametrize("fault", [cut, garbled, silent])
def test_a_failure_is_mended_once_and_what_was_answered_is_not_asked_again(server: PackedServer, fault: Any) -> None:
    faults = [fault]
    server.sends = lambda messages: faults.pop()(messages) if faults else iter(messages)
    found: list[int] = []
    began = time.monotonic()
    answered(server, lambda index, _: found.append(index), time_limit_s=1.0)
    assert found == [4, 3, 2, 1, 0] and time.monotonic() - began < 10
    assert [[call.prompt_ids[0] for call in calls] for calls in server.asked] == [[0, 1, 2, 3, 4], [0, 1, 2]]


def test_the_second_failure_is_the_runs(server: PackedServer) -> None:
    server.sends = lambda messages: cut(messages)
    found: list[int] = []
    with pytest.raises(EngineFailure):
        answered(server, lambda index, _: found.append(index))
    assert found == [4, 3, 2, 1]


def test_another_server_at_the_same_address_does_not_answer_before_it_has_the_weights(server: PackedServer) -> None:
    """Somebody has started it anew between two runs."""
    server.instance, told = "first", []
    with ServerBackend(None, server.url, start_limit_s=5.0, time_limit_s=5.0) as backend:
        backend.after_restart.append(lambda: told.append(len(server.asked)))
        backend.run(CALLS, lambda *_: None)
        server.instance = "second"
        backend.run(CALLS, lambda *_: None)
    assert told == [1] and len(server.asked) == 2


def test_slow_answers_are_waited_for_as_long_as_they_come(server: PackedServer) -> None:
    """The limit is until the next answer, not until the last."""

    def slow(messages: list[bytes]) -> Iterator[bytes]:
        for message in messages:
            time.sleep(0.6)
            yield message

    server.sends = slow
    found: list[int] = []
    answered(server, lambda index, _: found.append(index), time_limit_s=1.0)
    assert found == [4, 3, 2, 1, 0] and len(server.asked) == 1


def test_an_error_of_ours_is_not_the_servers(server: PackedServer) -> None:
    def broken(index: int, answer: Answer) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        answered(server, broken)
    assert len(server.asked) == 1

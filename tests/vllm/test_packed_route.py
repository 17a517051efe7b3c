"""The server's side of the packed form, around an engine that is played: no model is loaded."""

from __future__ import annotations

import asyncio
import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from harness.rollout import packed
from harness.rollout.vllm import Call, EngineFailure

pytestmark = pytest.mark.vllm

INSTANCE = "this-server"
CALLS = [Call((1, 2), {"max_tokens": 1}), Call((2, 2), {"max_tokens": 1})]


class PlayedEngine:
    """Answers a prompt that begins with 1 with the token 7; begins every other one, and never ends it."""

    def __init__(self) -> None:
        self.running, self.ended = 0, 0

    async def generate(self, prompt: Any, params: Any, request_id: str) -> Any:
        self.running += 1
        try:
            if prompt["prompt_token_ids"][0] != 1:
                await asyncio.sleep(60)
            written = SimpleNamespace(token_ids=[7], finish_reason="length", logprobs=None)
            yield SimpleNamespace(outputs=[written], prompt_logprobs=None)
        finally:
            self.ended += 1


class Exchange:
    """One request to the middleware, message by message."""

    def __init__(
        self, engine: Any, body: bytes, method: str = "POST", path: str = packed.PATH, instance: str = INSTANCE
    ) -> None:
        state = SimpleNamespace(engine_client=engine)
        self.scope = {
            "type": "http",
            "path": path,
            "method": method,
            "query_string": f"{packed.INSTANCE}={instance}".encode(),
            "headers": [],
            "app": SimpleNamespace(state=state),
        }
        self.received, self.sent = [{"type": "http.request", "body": body}], bytearray()
        self.status, self.leaves = 0, asyncio.Event()

    async def run(self) -> None:
        from harness.rollout.packed_route import PackedAnswers

        async def inner(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 418})

        route = PackedAnswers(inner)
        assert len(route.instance) == 32  # hex digits, drawn at every start
        route.instance = INSTANCE
        await route(self.scope, self.receive, self.send)

    async def receive(self) -> Any:
        if self.received:
            return self.received.pop()
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.sent += message.get("body", b"")


def test_what_is_done_is_sent_and_a_client_that_leaves_ends_the_rest() -> None:
    async def scenario() -> None:
        engine = PlayedEngine()
        exchange = Exchange(engine, packed.pack_calls(CALLS))
        running = asyncio.create_task(exchange.run())
        while not exchange.sent:
            await asyncio.sleep(0.01)
        ((index, answer),) = packed.read_answers(io.BytesIO(bytes(exchange.sent)).read, CALLS[:1])
        assert (index, answer.token_ids, exchange.status) == (0, (7,), 200)
        assert (engine.running, engine.ended) == (2, 1)
        exchange.leaves.set()
        await asyncio.wait_for(running, 10)
        assert engine.ended == 2

    asyncio.run(scenario())


def test_a_refusal_of_the_engine_reaches_the_client() -> None:
    exchange = _finished(Exchange(None, packed.pack_calls(CALLS[:1])))  # nothing to generate with
    with pytest.raises(EngineFailure, match="'NoneType' object has no attribute 'generate'"):
        list(packed.read_answers(io.BytesIO(bytes(exchange.sent)).read, CALLS[:1]))


def test_what_it_speaks_and_what_it_does_not() -> None:
    spoken = json.loads(_finished(Exchange(None, b"", "GET")).sent)
    assert spoken == {**packed.SPOKEN, packed.INSTANCE: INSTANCE}
    assert _finished(Exchange(None, packed.pack_calls(CALLS[:1]), instance="an-earlier-one")).status == 409
    assert _finished(Exchange(None, b"garbage")).status == 400
    assert _finished(Exchange(None, b"", path="/v1/completions")).status == 418


def _finished(exchange: Exchange) -> Exchange:
    asyncio.run(exchange.run())
    return exchange

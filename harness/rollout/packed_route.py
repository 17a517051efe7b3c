"""The server's side of `harness.rollout.packed`: an ASGI middleware for `vllm serve --middleware`.

    --middleware harness.rollout.packed_route.PackedAnswers

It adds one route to the server, which takes many calls in one request and answers each, as soon as it is done, by
arrays. Like /collective_rpc it asks for no key: a server with it belongs on loopback or a closed network.

Imported by the server's process alone.
"""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from harness.models.private_names import ENGINE_CLIENT
from harness.rollout.packed import INSTANCE, PATH, SPOKEN, pack_answer, pack_refusal, read_calls
from harness.rollout.prompt_arrays import keep_prompt_arrays
from harness.rollout.vllm import Call, read_output, sampling_params


class PackedAnswers:
    """The route, before the server's own."""

    def __init__(self, app: Any) -> None:
        keep_prompt_arrays()
        self.app = app
        self.instance = uuid.uuid4().hex  # a restarted server has other weights than who asks may think

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        if request.method == "GET":
            response: Response = JSONResponse({**SPOKEN, INSTANCE: self.instance})
        elif request.query_params.get(INSTANCE) != self.instance:
            response = PlainTextResponse("this server was started since it was asked who it is", status_code=409)
        else:
            response = await _response(request)
        await response(scope, receive, send)


async def _response(request: Request) -> Response:
    try:
        calls = read_calls(io.BytesIO(await request.body()).read)
    except (ValueError, KeyError, TypeError) as error:
        return PlainTextResponse(f"the calls cannot be read: {error}", status_code=400)
    answers = _answers(ENGINE_CLIENT.of(request.app.state), calls)  # a client that goes away ends them
    return StreamingResponse(answers, media_type="application/octet-stream")


async def _answers(engine: Any, calls: Sequence[Call]) -> AsyncIterator[bytes]:
    tasks = [asyncio.create_task(_answer(engine, index, call)) for index, call in enumerate(calls)]
    try:
        for task in asyncio.as_completed(tasks):
            yield await task
    finally:
        for unfinished in tasks:
            unfinished.cancel()


async def _answer(engine: Any, index: int, call: Call) -> bytes:
    try:
        prompt, name = {"prompt_token_ids": list(call.prompt_ids)}, f"harness-{uuid.uuid4().hex}"
        (output,) = [output async for output in engine.generate(prompt, sampling_params(call), name)]  # the final one
        return pack_answer(index, read_output(output, call))
    except Exception as error:
        return pack_refusal(index, f"{type(error).__name__}: {error}")

"""The HTTP side of engine=server against a server that is made to misbehave; no vLLM is needed here."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.rollout import RolloutRequest, Sampling, packed
from harness.rollout.completions_api import read_choice
from harness.rollout.server import ServerBackend, ServerProcess
from harness.rollout.vllm import NOT_PUSHED, Call, EngineFailure, EngineOptions, VLLMEngine
from harness.rollout.weights import PushedWeights
from harness.scoring import Completion, ScoreRequest
from harness.scoring.vllm import VLLMScorer

Answer = Callable[[str, Any], Any]  # (path, body) -> JSON, or an int for a bare status


class FakeServer:
    """Speaks the part of vLLM's API that is used. `answers` is asked first; None from it means: as a healthy server
    would.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.answer: Answer = lambda path, body: None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(None)

            def do_POST(self) -> None:
                self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def reply(self, body: Any) -> None:
                if self.path not in ("/health", "/v1/models", packed.PATH):
                    fake.asked.append((self.path, body))
                found = fake.answer(self.path, body)
                found = healthy(self.path, body) if found is None else found
                status, text = (found, b"") if isinstance(found, int) else (200, json.dumps(found).encode())
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # who asked has given up
                    self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def calls(self, path: str) -> list[Any]:
        return [body for asked, body in self.asked if asked == path]


def healthy(path: str, body: Any) -> Any:
    """Writes seed, seed + 1, … as tokens, with log-prob -1; scores every prompt token at -20, its top k from 60
    downwards.
    """
    if path == "/v1/models":
        return {"data": [{"id": "m", "max_model_len": 100}]}
    if path != "/v1/completions":
        return {"results": [None]}
    written = [body.get("seed", 0) + i for i in range(body["max_tokens"])]
    choice: dict[str, Any] = {
        "token_ids": written,
        "finish_reason": "length",
        "logprobs": None,
        "prompt_logprobs": None,
    }
    if "logprobs" in body:
        top = {f"token_id:{60 - i}": -0.5 - i for i in range(body["logprobs"])}
        choice["logprobs"] = {"token_logprobs": [-1.0] * len(written), "top_logprobs": [top] * len(written)}
    if "prompt_logprobs" in body:
        rows = [
            {str(token): {"logprob": -20.0}}
            | {str(60 - i): {"logprob": -0.5 - i} for i in range(body["prompt_logprobs"])}
            for token in body["prompt"][1:]
        ]
        choice["prompt_logprobs"] = [None, *rows]
    return {"choices": [choice]}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.http.shutdown()


def connected(server: FakeServer, time_limit_s: float = 5.0) -> ServerBackend:
    return ServerBackend(None, server.url, start_limit_s=5.0, time_limit_s=time_limit_s)


REQUESTS = [RolloutRequest(f"p{i}", (1, 2, 3), 10 * i, i, (7,) if i == 1 else ()) for i in range(4)]


def test_rollouts(server: FakeServer) -> None:
    finished: list[int] = []
    with connected(server) as backend:
        rollouts = VLLMEngine(backend).generate(
            REQUESTS, Sampling(3, stop_ids=(5,)), finished=lambda i, _: finished.append(i)
        )
    assert [r.completion_ids for r in rollouts] == [(0, 1, 2), (7, 10, 11, 12), (20, 21, 22), (30, 31, 32)]
    assert rollouts[1].prefix_len == 1 and rollouts[1].logprobs == (0.0, -1.0, -1.0, -1.0)
    assert rollouts[0].policy_version == NOT_PUSHED and sorted(finished) == [0, 1, 2, 3]
    sent = {body["seed"]: body for body in server.calls("/v1/completions")}
    assert sent[10]["prompt"] == [1, 2, 3, 7]
    assert (
        sent[0] | {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "stop_token_ids": [5], "ignore_eos": True} == sent[0]
    )


def test_scores(server: FakeServer) -> None:
    asked = [Completion((1, 2), (3, 4, 60)), Completion((1,), (9,))]
    with connected(server) as backend:
        scored = VLLMScorer(backend, 64, 64).score(asked, ScoreRequest(top_k=2))
        assert scored.signal.logprobs.tolist() == [[-20, -20, -0.5], [-20, 0, 0]]  # 60 is both the token and the top 1
        assert scored.signal.topk_ids is not None and scored.signal.topk_ids[0].tolist() == [[60, 59]] * 3
        mask = scored.signal.logprobs == -20
        ids, logprobs = scored.support(mask, 3)
    assert ids.tolist() == [[60, 59, 58]] * 3 and logprobs.tolist() == [[-0.5, -1.5, -2.5]] * 3


FAULTS: dict[str, Any] = {
    "died": 500,
    "not JSON's shape": {"choices": []},
    "too few log-probs": {
        "choices": [
            {"token_ids": [1, 2], "finish_reason": "stop", "logprobs": {"token_logprobs": [-1.0], "top_logprobs": [{}]}}
        ]
    },
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_mended_once_and_finished_samples_are_not_made_again(server: FakeServer, fault: str) -> None:
    failing = threading.Event()
    told: list[str] = []

    def answer(path: str, body: Any) -> Any:
        if path == "/v1/completions" and body["seed"] == 20 and not failing.is_set():
            while len(done) < 3:  # the others are through
                time.sleep(0.01)
            failing.set()
            return FAULTS[fault]
        return None

    server.answer = answer
    done: list[int] = []
    with connected(server) as backend:
        backend.after_restart.append(lambda: told.append("weights"))
        rollouts = VLLMEngine(backend).generate(REQUESTS, Sampling(2), finished=lambda i, _: done.append(i))
        assert [r.completion_ids[-1] for r in rollouts] == [1, 11, 21, 31]
        assert sorted(done) == [0, 1, 2, 3] and told == ["weights"]
        assert sorted(body["seed"] for body in server.calls("/v1/completions")) == [0, 10, 20, 20, 30]
        failing.clear()
        done.clear()
        with pytest.raises(EngineFailure):  # the second time it is the run's failure
            VLLMEngine(backend).generate(REQUESTS, Sampling(2), finished=lambda i, _: done.append(i))


def test_a_server_that_hangs_is_given_up_at_its_limit(server: FakeServer) -> None:
    waits = [30.0]

    def answer(path: str, body: Any) -> Any:
        if path == "/v1/completions" and waits:
            time.sleep(waits.pop())
        return None

    server.answer = answer
    began = time.monotonic()
    with connected(server, time_limit_s=1.5) as backend:
        assert len(VLLMEngine(backend).generate(REQUESTS[:1], Sampling(2))) == 1
    assert time.monotonic() - began < 20
    assert len(server.calls("/v1/completions")) == 2


def test_a_long_answer_gets_the_time_that_its_tokens_take(server: FakeServer) -> None:
    """0.1 s for each of 30 tokens beside the 0.5 s: 32,768 tokens get most of an hour where a short answer gets ten
    minutes.
    """

    def answer(path: str, body: Any) -> Any:
        if path == "/v1/completions":
            time.sleep(1.5)
        return None

    server.answer = answer
    with connected(server, time_limit_s=0.5) as backend:
        assert len(VLLMEngine(backend).generate(REQUESTS[:1], Sampling(30))) == 1
    assert len(server.calls("/v1/completions")) == 1


class Told(PushedWeights):
    """Weights that are one command."""

    def send(self) -> None:
        self.engine.backend.tell("load")


def test_a_push_that_fails_is_made_again_on_the_new_engine(server: FakeServer) -> None:
    with connected(server) as backend:
        engine = VLLMEngine(backend)
        weights = Told(engine, model=None)  # type: ignore[arg-type]
        weights.push(3)
        weights.push(3)
        assert engine.policy_version == 3 and len(server.calls("/collective_rpc")) == 1
        faults = [500]
        server.answer = lambda path, body: faults.pop() if path == "/collective_rpc" and faults else None
        weights.push(4)
        assert engine.policy_version == 4 and len(server.calls("/collective_rpc")) == 3
        assert len(server.calls("/reset_prefix_cache")) == 2
        faults = [500]
        with pytest.raises(EngineFailure):
            weights.push(5)
        assert engine.policy_version == NOT_PUSHED  # nobody may call what is there now version 4 or 5


def test_a_restarted_server_gets_the_current_weights(server: FakeServer) -> None:
    with connected(server) as backend:
        engine = VLLMEngine(backend)
        Told(engine, model=None).push(7)  # type: ignore[arg-type]
        faults = [500]
        server.answer = lambda path, body: faults.pop() if path == "/v1/completions" and faults else None
        (rollout,) = engine.generate(REQUESTS[:1], Sampling(1))
    assert rollout.policy_version == 7
    assert [path for path, _ in server.asked if path != "/reset_prefix_cache"] == [
        "/collective_rpc",
        "/v1/completions",
        "/collective_rpc",
        "/v1/completions",
    ]


def test_a_server_that_takes_no_commands_is_bad_input(server: FakeServer) -> None:
    server.answer = lambda path, body: 404 if path == "/collective_rpc" else None
    with connected(server) as backend, pytest.raises(UserError, match="VLLM_SERVER_DEV_MODE=1"):
        backend.tell("harness_describe")


def test_no_server_at_all() -> None:
    with (
        pytest.raises(EngineFailure, match="no vLLM server answers"),
        ServerBackend(None, "http://127.0.0.1:9", start_limit_s=0.1, time_limit_s=1),
    ):
        pass


def test_a_server_that_cannot_start_says_where_its_words_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.rollout.server.sys.executable", "/bin/false")
    options = EngineOptions("model", None, "float32", 2**20, 1, 1, True, True, 10)
    process = ServerProcess(options, 1, tmp_path / "logs" / "server.log")
    with pytest.raises(EngineFailure, match=r"ended at its start with status 1; see .*server\.log"):
        process.start(30)
    process.stop()
    assert (tmp_path / "logs" / "server.log").exists()


@pytest.mark.parametrize("missing", ["a position", "an alternative"])
def test_prompt_log_probs_are_counted(missing: str) -> None:
    call = Call((1, 2, 3), {"max_tokens": 1, "prompt_logprobs": 2})
    answer = healthy("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 1, "prompt_logprobs": 2})
    assert read_choice(answer, call).prompt is not None
    rows = answer["choices"][0]["prompt_logprobs"]
    if missing == "a position":
        rows.pop()
    else:
        del rows[1]["60"], rows[1]["2"]
    with pytest.raises(EngineFailure):
        read_choice(answer, call)

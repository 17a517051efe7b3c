"""A server that the harness starts, played by a script with vLLM's arguments: what stays over a restart, and where it
works.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from harness.rollout.server import ServerBackend, ServerProcess
from harness.rollout.vllm import Call, EngineFailure, EngineOptions

SCRIPT = """#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
given = dict(zip(sys.argv, sys.argv[1:]))
seen = {{name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "RANK", "VLLM_SERVER_DEV_MODE")}}
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        model = {{"id": given["--served-model-name"], "max_model_len": 10, "seen": seen}}
        self.reply(200, {{"data": [model]}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = asked["model"] == given["--served-model-name"]
        choice = {{"token_ids": [7], "finish_reason": "stop"}}
        self.reply(200 if known else 404, {{"choices": [choice]}})
    def reply(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def log_message(self, *_):
        pass
HTTPServer(("127.0.0.1", int(given["--port"])), Handler).serve_forever()
"""


def test_a_restarted_server_has_its_address_and_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not heard of the restart finds it by its address, and gets no answer from weights that it does not know:
    not before it has asked anew what the server serves.
    """
    script = tmp_path / "python"
    script.write_text(SCRIPT.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr("harness.rollout.server.sys.executable", str(script))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setenv("RANK", "0")
    options = EngineOptions("model", None, "float32", 2**20, 1, 1, True, True, 10)
    process = ServerProcess(options, 1, tmp_path / "server.log", device=1)
    with ServerBackend(process, None, start_limit_s=60, time_limit_s=5) as owner:
        first = process.url
        with ServerBackend(None, first, start_limit_s=60, time_limit_s=5) as guest:
            (seen,) = (model["seen"] for model in models(first))
            assert seen == {"CUDA_VISIBLE_DEVICES": "5", "RANK": None, "VLLM_SERVER_DEV_MODE": "1"}
            assert asked(owner) == asked(guest) == [7]
            assert process._process is not None
            os.killpg(process._process.pid, signal.SIGKILL)
            with pytest.raises(EngineFailure):
                asked(owner)
            owner.start_again()
            assert process.url == first and asked(owner) == [7]
            with pytest.raises(EngineFailure, match="status 404"):
                asked(guest)
            guest.start_again()
            assert asked(guest) == [7]


def models(url: str) -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{url}/v1/models") as response:
        found: list[dict[str, object]] = json.load(response)["data"]
    return found


def asked(backend: ServerBackend) -> list[int]:
    """The tokens that it answers, without a restart."""
    found: list[int] = []
    calls = iter([(0, Call((1,), {"max_tokens": 1}))])
    backend.work(lambda: next(calls, None), lambda _, answer: found.extend(answer.token_ids))
    return found

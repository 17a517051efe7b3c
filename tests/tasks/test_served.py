"""lm-eval's own command line asks a server: every repeat of a problem with a seed of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"  # holds aime24/test.jsonl, four rows of our own


class Server(BaseHTTPRequestHandler):
    """Answers with the seed that it was sent, as a server that heeds it would."""

    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        answer = {"choices": [{"index": 0, "message": {"content": rf"\boxed{{{body['seed']}}}"}}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: Any) -> None: ...


def test_the_repeats_of_a_problem_are_different_samples() -> None:
    asked: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Recording", (Server,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
    command = [sys.executable, "-m", "lm_eval", "run", "--include_path", str(ROOT / "tasks"), "--tasks", "aime24"]
    command += ["--model", "local-chat-completions", "--model_args", f"model=m,base_url={url},seed=7", "--limit", "2"]
    environment = {**os.environ, "BENCHMARK_DATA": str(DATA), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run([*command, "--apply_chat_template"], env=environment, capture_output=True, text=True)
    finally:
        server.shutdown()
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the repeats are sent with seeds 7 to 38" in done.stderr
    seeds: dict[str, list[int]] = {}
    for body in asked:
        seeds.setdefault(json.dumps(body["messages"]), []).append(body["seed"])
    assert [sorted(found) for found in seeds.values()] == [list(range(7, 39))] * 2  # 32 samples, 32 seeds

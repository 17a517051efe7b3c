"""vLLM behind HTTP: a server that is started here on loopback, or one that runs already.

Started ones never outlive this process: they are a process group of their own, which a watchdog ends with us, however
we end. A server that dies, does not answer in time or answers nonsense is started once more, is told again what it must
know (vocabulary, current weights), and gets the requests that are still open; the second failure is the run's.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from harness.errors import UserError
from harness.models.private_names import JSON_SAFE
from harness.rollout import packed
from harness.rollout.completions_api import read_choice
from harness.rollout.restarts import RestartingBackend, taken
from harness.rollout.vllm import Answer, Call, Done, EngineFailure, EngineOptions, Take, child_environment
from harness.sandbox.watchdog import unwatch, watch

MODEL_NAME = "harness"  # under which a started server knows its model
MIDDLEWARE = "harness.rollout.packed_route.PackedAnswers"
CONNECTIONS = 64  # requests in flight to a server that answers one call a request
PACKED_CALLS = 256  # in flight to a server that answers many calls a request
SECONDS_PER_TOKEN = 0.1  # of a completion that a server writes beside many others, at the slowest
STOP_S = 10.0  # given to a server to end by itself
# becomes the server only when the watchdog knows of it; if we end before, the word never comes, and neither does the
# server
_WAIT_FOR_WORD = ("/bin/sh", "-c", 'read word && exec "$@" </dev/null', "sh")


Put = SimpleQueue[tuple[int, Answer] | Exception]


class ServerProcess:
    """`vllm serve` as a child on a free loopback port, the same after a restart.

    Every start serves the model under another name (MODEL_NAME-1, -2): who has not yet heard of a restart, after which
    a server holds the weights of its source, asks for the old name and gets no answer from it.
    """

    def __init__(self, options: EngineOptions, threads: int, log: Path, device: int | None = None) -> None:
        """
        Args: device: the GPU that it works on, as this process counts them; None: those that this process sees.
        """
        self.options, self.threads, self.log, self.device = options, threads, log, device
        self.url = ""
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, limit_s: float) -> None:
        """Starts the server and waits until it is ready; EngineFailure with its last line if it ends or is not."""
        if not self.url:
            self._choose_port()
        self._starts += 1
        port, name = self.url.rpartition(":")[2], f"{MODEL_NAME}-{self._starts}"
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", self.options.source]
        command += ["--host", "127.0.0.1", "--port", port, "--served-model-name", name]
        command += ["--generation-config", "vllm", "--middleware", MIDDLEWARE, *_flags(self.options.arguments())]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_WAIT_FOR_WORD, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a process group of its own; an interrupt from the keyboard is ours to handle
                env={
                    **child_environment(self.threads, self.device),
                    "VLLM_SERVER_DEV_MODE": "1",  # /collective_rpc, /reset_prefix_cache and the weight transfer
                    # CUDA IPC handles come pickled; the server listens on loopback only
                    **({"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"} if self.options.transfer_backend == "ipc" else {}),
                },
            )
        # not the context manager `watched`: an interpreter that ends on an error closes it, and so calls the watchdog
        # off
        watch(self._process.pid)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as word:  # it has ended: said below
            word.write(b"go\n")
        ready_by = time.monotonic() + limit_s
        while not is_healthy(self.url):
            if self._process.poll() is not None:
                raise EngineFailure(
                    f"vllm serve ended at its start with status {self._process.returncode}; see {self.log}"
                )
            if time.monotonic() > ready_by:
                self.stop()
                raise EngineFailure(f"vllm serve was not ready within {limit_s:.0f} s; see {self.log}")
            time.sleep(0.2)

    def _choose_port(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"

    def stop(self) -> None:
        """Ends the server and everything that it started."""
        if self._process is None:
            return
        group = self._process.pid
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        unwatch(group)
        self._process = None


def _flags(arguments: dict[str, Any]) -> list[str]:
    """vllm.LLM's arguments on the command line of `vllm serve`."""
    flags = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags


def is_healthy(url: str) -> bool:
    """Whether a server answers at all."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as response:
            return response.status == 200
    except (OSError, http.client.HTTPException):
        return False


class ServerBackend(RestartingBackend):
    """A Backend over HTTP; a context manager that stops the server if it is ours."""

    engine = "vLLM server"

    def __init__(
        self, process: ServerProcess | None, url: str | None, start_limit_s: float, time_limit_s: float
    ) -> None:
        """
        Args:
            process: to be started here; None: the server at `url` runs already.
            start_limit_s: until a server must be ready. time_limit_s: for one answer, and SECONDS_PER_TOKEN more for
                each token that may be written.
        """
        super().__init__()
        self._process, self._url = process, (url or "").rstrip("/")
        self._start_limit_s, self._time_limit_s = start_limit_s, time_limit_s
        self._model = MODEL_NAME
        self._packs: bool | None = None  # None: not asked yet
        self._instance = ""
        self.max_length = 0

    def __enter__(self) -> ServerBackend:
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.stop()

    @property
    def url(self) -> str:
        """Of the server as it runs now."""
        return self._process.url if self._process is not None else self._url

    def _connect(self) -> None:
        if self._process is not None:
            self._process.start(self._start_limit_s)
        else:
            ready_by = time.monotonic() + self._start_limit_s
            while not is_healthy(self._url):
                if time.monotonic() > ready_by:
                    raise EngineFailure(f"no vLLM server answers at {self._url}")
                time.sleep(0.5)
        (model,) = self._exchange("/v1/models")["data"]
        self._model, self.max_length = model["id"], int(model["max_model_len"])
        unknown, self._packs = self._packs is None, self._speaks_packed()
        if not self._packs and unknown:
            self._say_that_it_speaks_json()

    def _speaks_packed(self) -> bool:
        """Whether it does; notes which server it is, so that another one at its address is not taken for it."""
        try:
            said = self._exchange(packed.PATH)
            self._instance = said.pop(packed.INSTANCE)
            return bool(said == packed.SPOKEN)
        except (EngineFailure, AttributeError, KeyError):  # status 404, or something else
            return False

    def _say_that_it_speaks_json(self) -> None:
        print(
            f"the vLLM server at {self.url} answers in JSON, many times the bytes of arrays; start it with "
            f"--middleware {MIDDLEWARE}, and this folder in its PYTHONPATH",
            file=sys.stderr,
        )

    @property
    def slots(self) -> int:  # type: ignore[override]
        """See RestartingBackend."""
        return PACKED_CALLS if self._packs else CONNECTIONS

    def work(self, take: Take, done: Done) -> None:
        """See RestartingBackend. Packed, what is taken at a time goes in one request."""
        threads = ThreadPoolExecutor(max_workers=self.slots)
        answers: Put = SimpleQueue()
        wanted, at_work = threading.Event(), 0
        wanted.set()
        try:
            while True:
                calls = taken(take, self.slots - at_work)
                at_work += len(calls)
                for together in [calls] if self._packs and calls else [[call] for call in calls]:
                    threads.submit(self._ask_all, together, answers, wanted)
                if not at_work:
                    return
                answer = answers.get()
                if isinstance(answer, Exception):
                    raise answer
                at_work -= 1
                done(*answer)
        finally:
            wanted.clear()  # those in flight end with the server, at their next answer, or at their time limit
            threads.shutdown(wait=False, cancel_futures=True)

    def _ask_all(self, calls: list[tuple[int, Call]], answers: Put, wanted: threading.Event) -> None:
        """Puts the calls' answers into a queue as they come, or the error that ended it. Packed, the time limit is
        until the next answer must come.
        """
        try:
            if not self._packs:
                ((index, call),) = calls
                answers.put((index, self._ask(call)))
                return
            asked = [call for _, call in calls]
            limit_s = max(map(self._limit_s, asked))
            path = f"{packed.PATH}?{packed.INSTANCE}={self._instance}"
            with self._reply(path, packed.pack_calls(asked), limit_s) as reply:
                for place, answer in packed.read_answers(reply, asked):
                    if not wanted.is_set():
                        return
                    answers.put((calls[place][0], answer))
        except Exception as error:
            answers.put(error)

    def _ask(self, call: Call) -> Answer:
        body = {
            "model": self._model,
            "prompt": list(call.prompt_ids),
            "add_special_tokens": False,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **call.options,
        }
        return read_choice(self._exchange("/v1/completions", body, self._limit_s(call)), call)

    def _limit_s(self, call: Call) -> float:
        return self._time_limit_s + SECONDS_PER_TOKEN * call.options["max_tokens"]

    def tell(self, method: str, **arguments: Any) -> Any:
        """See Backend; arguments must be JSON."""
        answer = self._exchange("/collective_rpc", {"method": method, "kwargs": arguments})
        return answer["results"][0] if answer else None

    def reset_prefix_cache(self) -> None:
        """See Backend."""
        self._exchange("/reset_prefix_cache", {})

    def start_again(self) -> None:
        """See RestartingBackend; a server that is not ours is waited for."""
        if self._process is not None:
            self._process.stop()
        self._connect()

    # vLLM's VLLMWeightSyncClient
    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """See vllm.distributed.weight_transfer.base."""
        self._exchange("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        """See vllm.distributed.weight_transfer.base."""
        self._exchange("/start_weight_update", {})

    def update_weights(self, update_info: Any) -> None:
        """See vllm.distributed.weight_transfer.base."""
        self._exchange("/update_weights", {"update_info": JSON_SAFE.get()(update_info)})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """See vllm.distributed.weight_transfer.base."""
        self._exchange("/finish_weight_update", {} if weight_version is None else {"weight_version": weight_version})

    def _exchange(self, path: str, body: Any = None, limit_s: float | None = None) -> Any:
        """A GET, or a POST with a body; the answer's JSON, None if it has none. `limit_s`: in place of the time limit
        of any answer.
        """
        data = None if body is None else json.dumps(body).encode()
        with self._reply(path, data, limit_s or self._time_limit_s) as read:
            text = read()
        try:
            return json.loads(text) if text.strip() else None
        except ValueError as error:
            raise EngineFailure(f"{path} was answered with something else than JSON") from error

    @contextlib.contextmanager
    def _reply(self, path: str, data: bytes | None, limit_s: float) -> Iterator[Callable[..., bytes]]:
        """Reads the answer to a GET, or to a POST of `data`. EngineFailure if the server refuses, or is silent for
        longer than the limit.
        """
        kind = "application/octet-stream" if path.startswith(packed.PATH) else "application/json"
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": kind})

        def said(error: Exception) -> EngineFailure:
            return EngineFailure(f"{path} was not answered: {type(error).__name__}: {error}")

        try:
            response = urllib.request.urlopen(request, timeout=limit_s)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")[:300]
            if error.code == 404 and path == "/collective_rpc":
                raise UserError(
                    f"the vLLM server at {self.url} takes no commands; start it with VLLM_SERVER_DEV_MODE=1 in its "
                    "environment and --worker-extension-cls harness.rollout.worker.WorkerExtension."
                ) from error
            raise EngineFailure(f"{path} was answered with status {error.code}: {text}") from error
        except (OSError, http.client.HTTPException) as error:
            raise said(error) from error

        def read(*size: int) -> bytes:
            try:
                return response.read(*size)
            except (OSError, http.client.HTTPException) as error:  # only its own: what is done meanwhile may fail too
                raise said(error) from error

        with response:
            yield read

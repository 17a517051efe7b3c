"""A program that tries to break out, run once before any other: a sandbox is trusted for what it does, not its name."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable

from harness.sandbox.program import MIB, Limits, Outcome, Program

_LIMITS = Limits(wall_s=20, memory_bytes=256 * MIB, processes=12, file_bytes=MIB, disk_bytes=4 * MIB)

# Every line of its output is one thing that it could do and should not be able to.
_CODE = """
import json, mmap, os, signal, socket, sys, time
known = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "known.json")))
found = []

def tries(what, action):
    try:
        if action() is not False:
            found.append(what)
    except Exception:
        pass

def write(path):
    with open(path, "w") as file:
        file.write("x")

def connect():
    socket.create_connection(("127.0.0.1", known["port"]), 1).close()

def fill():
    for number in range(64):
        with open(f"/tmp/{number}", "wb") as file:
            file.write(bytes(1 << 19))

def fork():
    for _ in range(known["processes"] + 1):
        if os.fork() == 0:
            time.sleep(10)
            os._exit(0)

write("/tmp/own")
tries("reach the network", connect)
tries("see the user's files", lambda: os.path.exists(known["file"]))
tries("read /etc/passwd", lambda: open("/etc/passwd").read(1))
tries("write to /", lambda: write("/canary"))
tries("write to /usr", lambda: write("/usr/canary"))
tries("see the environment", lambda: known["secret"] in os.environ)
tries("see other processes", lambda: any(int(p) > 100 for p in os.listdir("/proc") if p.isdigit()))
tries("exceed the limit on memory", lambda: bytearray(2 * known["memory"]))
tries("exceed the limit on a file", lambda: open("/tmp/big", "wb").write(bytes(2 * known["file_bytes"])))
tries("exceed the limit on its folder", fill)
tries("keep memory that no limit counts", lambda: mmap.mmap(-1, mmap.PAGESIZE))
tries("fill the buffers of sockets", socket.socketpair)
tries("exceed the limit on processes", fork)
print(json.dumps(found))
"""


def objections(run: Callable[[Program], Outcome]) -> str | None:
    """What a program could do in a sandbox that it must not, or how it failed; None if all is well."""
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.NamedTemporaryFile() as file:
        os.environ.setdefault(_SECRET, "1")
        known = {
            "port": server.getsockname()[1],
            "file": file.name,
            "secret": _SECRET,
            "memory": _LIMITS.memory_bytes,
            "processes": _LIMITS.processes,
            "file_bytes": _LIMITS.file_bytes,
        }
        outcome = run(Program(_CODE, files={"known.json": json.dumps(known).encode()}, limits=_LIMITS))
    os.environ.pop(_SECRET, None)
    try:
        found = json.loads(outcome.stdout)
    except ValueError:
        last = (outcome.stderr_tail.strip().splitlines() or [f"{outcome.reason}, exit code {outcome.exit}"])[-1]
        return f"the test program failed ({last[:300]})"
    return f"a program in it could {', '.join(found)}" if found else None


_SECRET = "SANDBOX_CANARY"

"""The sandbox as its callers see it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import harness.sandbox.sandbox as sandbox_module
from harness.errors import UserError
from harness.sandbox import ALLOW_UNSANDBOXED, Limits, Program, Sandbox, SandboxError
from harness.sandbox.canary import objections
from harness.sandbox.confinement import Bubblewrap, Launch, Unconfined
from harness.sandbox.program import MIB
from harness.sandbox.seccomp import seccomp_filter
from tests.sandbox.test_hostile import descendants

ROOT = Path(__file__).parents[2]
SLEEPER = "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(60)"


def test_a_program_gets_its_input_and_files_and_its_output_comes_back(sandbox: Sandbox):
    text = os.urandom(3 * MIB).hex()
    code = (
        "import sys, os\nhere = os.path.dirname(__file__)\ndata = open(0).read()\n"
        "print(len(data), data[-5:], open(os.path.join(here, 'note.txt')).read(), exit)\n"
        "print('bad', file=sys.stderr)\nsys.exit(3)"
    )
    outcome = sandbox.run(Program(code, stdin=text.encode(), files={"note.txt": b"hello"}, limits=Limits(wall_s=20)))
    assert outcome.stdout.decode().startswith(f"{6 * MIB} {text[-5:]} hello Use exit()")
    assert (outcome.stderr_tail, outcome.exit, outcome.reason) == ("bad\n", 3, "exited")
    assert not outcome.ok


def test_signals_and_limits_are_told_apart(sandbox: Sandbox):
    limits = Limits(wall_s=0.7, output_bytes=1000, memory_bytes=256 * MIB)
    codes = ["import os; os.kill(os.getpid(), 11)", "while True: pass", "print('x' * 2000)", "print('x' * 999)"]
    outcomes = sandbox.map(sandbox.run, [Program(code, limits=limits) for code in codes], workers=2)
    assert [(outcome.exit, outcome.reason) for outcome in outcomes[:3]] == [
        (139, "exited"),
        (None, "wall"),
        (None, "output"),
    ]
    assert len(outcomes[2].stdout) == 1000
    assert outcomes[3].ok and len(outcomes[3].stdout) == 1000


def test_processor_time_is_limited_for_itself(sandbox: Sandbox):
    outcome = sandbox.run(Program("while True: pass", limits=Limits(wall_s=20, cpu_s=1)))
    assert outcome.reason == "exited" and outcome.exit in (128 + signal.SIGXCPU, 128 + signal.SIGKILL)


def test_a_hanging_program_costs_its_own_limit_only(sandbox: Sandbox):
    hanging = Program("import time; time.sleep(60)", limits=Limits(wall_s=1.5))
    quick = Program("print(1)", limits=Limits(wall_s=20))
    started = time.monotonic()
    outcomes = sandbox.map(sandbox.run, [hanging, *[quick] * 6], workers=2)
    assert time.monotonic() - started < 6
    assert [outcome.ok for outcome in outcomes] == [False] + [True] * 6


def test_the_watcher_sees_the_output_as_it_comes_and_can_stop(sandbox: Sandbox):
    seen = bytearray()

    def watch(data: bytes) -> bool:
        seen.extend(data)
        return b"stop" not in seen

    code = "import time\nprint('go', flush=True)\nprint('stop', flush=True)\ntime.sleep(60)"
    outcome = sandbox.run(Program(code, limits=Limits(wall_s=30)), watch)
    assert (outcome.reason, outcome.stdout, bytes(seen)) == ("stopped", b"", b"go\nstop\n")
    assert outcome.seconds < 20


def test_a_watch_may_wait_without_blinding_the_supervisor(sandbox: Sandbox):
    """While it waits no output is read, limits hold, and what it says afterwards counts, after the
    program's end too.
    """
    seen, pipes = [], [os.pipe() for _ in range(2)]

    class Answer:
        def fileno(self) -> int:
            return pipes[len(seen) - 1][0]

    def watch(data: bytes) -> bool | Answer:
        if not data:
            return b"last" not in b"".join(seen)
        seen.append(data)
        threading.Timer(0.3, os.write, (pipes[len(seen) - 1][1], b"x")).start()
        return Answer()

    code = "import time\nprint('first', flush=True)\ntime.sleep(0.1)\nprint('last', flush=True)"
    outcome = sandbox.run(Program(code, limits=Limits(wall_s=20)), watch)
    assert (outcome.reason, seen) == ("stopped", [b"first\n", b"last\n"])
    seen[:] = []
    limits = Limits(wall_s=20, memory_bytes=300 * MIB, processes=8)
    hungry = (
        "import os, time\nprint(1, flush=True)\nfor _ in range(2): os.fork()\nx = b'x' * (100 << 20)\ntime.sleep(60)"
    )

    class Never:
        def fileno(self) -> int:
            return quiet[0]

    quiet = os.pipe()
    outcome = sandbox.run(Program(hungry, limits=limits), lambda data: Never() if data else True)
    assert outcome.reason == "memory"
    for descriptor in (*quiet, *pipes[0], *pipes[1]):
        os.close(descriptor)


def test_hashing_is_the_same_every_time(sandbox: Sandbox):
    program = Program("print(hash('a'), list({'b', 'c', 'd', 'e'}))", limits=Limits(wall_s=20))
    assert len({outcome.stdout for outcome in sandbox.map(sandbox.run, [program] * 3, workers=2)}) == 1


def test_named_packages_can_be_imported_and_no_others(sandbox: Sandbox):
    limits = Limits(wall_s=30)
    code = (
        "import numpy\nprint(numpy.arange(3).sum())\ntry:\n    import yaml\nexcept ImportError:\n    print('no yaml')"
    )
    assert sandbox.run(Program(code, packages=("numpy", "not_installed"), limits=limits)).stdout == b"3\nno yaml\n"
    assert not sandbox.run(Program("import numpy", limits=limits)).ok


def test_map_keeps_order_and_reports_progress(sandbox: Sandbox):
    done: list[int] = []
    assert sandbox.map(lambda item: item * 2, [3, 1, 2], workers=2, done=done.append) == [6, 2, 4]
    assert done == [1, 1, 1]


def test_an_error_in_one_item_stops_the_others(sandbox: Sandbox):
    def work(item: int) -> None:
        if item == 0:
            time.sleep(0.3)
            raise KeyError("broken")
        sandbox.run(Program("import time; time.sleep(60)", limits=Limits(wall_s=60)))

    started = time.monotonic()
    with pytest.raises(KeyError, match="broken"):
        sandbox.map(work, list(range(10)), workers=2)
    assert time.monotonic() - started < 10
    assert sandbox.run(Program("print(1)", limits=Limits(wall_s=20))).ok  # and the sandbox is still good


def test_a_killed_parent_leaves_nothing(sandbox: Sandbox, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "from harness.sandbox import *\nfrom harness.sandbox.sandbox import _detect\n"
        f"s = Sandbox.detect()\nprint('ready', flush=True)\ns.run(Program({SLEEPER!r}, limits=Limits(wall_s=60)))"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, cwd=ROOT, env=_environment())
    assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
    time.sleep(1)
    inside = descendants(parent.pid)
    assert len(inside) >= 3  # bubblewrap, its first process inside, and the program
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in inside) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in inside if _alive(pid)]


@pytest.mark.slow
def test_a_parent_that_is_killed_at_any_moment_leaves_nothing(sandbox: Sandbox):
    """Also while sandboxes are being set up, when their processes are not tied to each other's lives yet."""
    script = (
        "from harness.sandbox import *\ns = Sandbox.detect()\nprint('ready', flush=True)\n"
        f"while True: s.map(s.run, [Program({SLEEPER!r}, limits=Limits(wall_s=0.02))] * 40, 2)"
    )
    before, left = _orphans(), set()
    for moment in range(30):
        parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, env=_environment())
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        time.sleep(0.01 * moment)
        inside = descendants(parent.pid)
        parent.kill()
        parent.wait()
        time.sleep(0.5)
        left |= {pid for pid in inside if _alive(pid)}
    assert not left
    assert _orphans() <= before


def _orphans() -> set[int]:
    """Living processes of bubblewrap whose parent is neither bubblewrap nor a Python."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text() == "bwrap\n" and _alive(int(entry.name)):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if not Path(f"/proc/{parent}/comm").read_text().startswith(("bwrap", "python", "pytest")):
                    found.add(int(entry.name))
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def test_an_ordinary_user_is_protected_too(sandbox: Sandbox, tmp_path):
    """Run as another user; the system's Python, since that of this environment may lie in root's home."""
    if os.geteuid() != 0:
        assert sandbox.name == "bubblewrap, user namespace"
        return
    python = "/usr/bin/python3"
    if not os.path.exists(python):
        pytest.skip("no Python that another user can run")
    code = (
        "import sys; assert sys.version_info >= (3, 11), 'old'\nfrom harness.sandbox import *\n"
        "s = Sandbox.detect(); print(s.name, s.run(Program('print(6)')).stdout)"
    )
    shutil.copytree(ROOT / "harness" / "sandbox", tmp_path / "harness" / "sandbox")
    shutil.copy(ROOT / "harness" / "errors.py", tmp_path / "harness")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder != Path("/tmp"):
            folder.chmod(0o755)
    setpriv = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=-all", "--"]
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    run = subprocess.run([*setpriv, python, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    if "old" in run.stderr or "No permissions to create a new namespace" in run.stderr:
        pytest.skip("this machine gives ordinary users no namespaces, or no Python that is new enough")
    assert run.stdout == "bubblewrap, user namespace b'6\\n'\n", run.stderr


def test_the_canary_objects_to_what_does_not_confine():
    complaint = objections(Sandbox(Unconfined()).run)
    assert complaint and "reach the network" in complaint and "see the user's files" in complaint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root outside is exempt from limits inside a user namespace")
def test_the_canary_objects_to_a_user_namespace_made_by_root(sandbox: Sandbox):
    assert objections(Sandbox(Bubblewrap(as_root=False)).run) == "a program in it could exceed the limit on processes"


def test_without_a_sandbox_code_is_refused_unless_that_is_wanted(monkeypatch):
    monkeypatch.setattr(sandbox_module, "_detect", lambda user: (None, "bwrap not installed"))
    monkeypatch.delenv(ALLOW_UNSANDBOXED, raising=False)
    with pytest.raises(UserError, match=r"bwrap not installed.*apt-get install bubblewrap"):
        Sandbox.detect()
    monkeypatch.setenv(ALLOW_UNSANDBOXED, "1")
    unsafe = Sandbox.detect()
    assert (unsafe.name, unsafe.confined) == ("none (unsafe)", False)
    program = Program("print(open(__file__.replace('main.py', 'a')).read(), input())", b"in", {"a": b"file"})
    assert unsafe.run(program).stdout == b"file in\n"
    assert unsafe.run(Program("while True: pass", limits=Limits(wall_s=0.5))).reason == "wall"
    with pytest.raises(UserError):
        Sandbox.detect(allow_unsafe=False)


def test_a_tool_that_does_not_start_is_no_verdict(monkeypatch, sandbox: Sandbox):
    class Broken(Bubblewrap):
        def prepare(self, program: Program, slot: int):
            import contextlib

            @contextlib.contextmanager
            def launch():
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    yield Launch(("/bin/sh", "-c", "echo broken >&2; exit 1"), (), {}, lifeline=ours)

            return launch()

    with pytest.raises(SandboxError, match="broken"):
        Sandbox(Broken(as_root=True)).run(Program("print(1)"))


def test_bad_limits_and_names_are_refused():
    with pytest.raises(ValueError, match="wall_s"):
        Limits(wall_s=0)
    with pytest.raises(ValueError, match="a/b"):
        Program("", files={"a/b": b""})
    with pytest.raises(ValueError, match=r"main\.py"):
        Program("", files={"main.py": b""})


def test_the_filter_is_whole_instructions_and_known_for_two_architectures():
    for machine in ("x86_64", "aarch64"):
        rules = seccomp_filter(machine)
        assert rules and len(rules) % 8 == 0
    assert seccomp_filter("riscv64") is None

"""Every hostile program fails within its limits, leaves nothing, and does not disturb the honest one beside it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from harness.sandbox import Limits, Outcome, Program, Sandbox
from tests.sandbox.hostile import HOSTILE

WALL_S = 1.0
SLACK_S = 4.0  # for starting and ending a process on a busy machine
LIMITS = Limits(
    wall_s=WALL_S,
    memory_bytes=256 << 20,
    processes=16,
    output_bytes=1 << 20,
    file_bytes=2 << 20,
    disk_bytes=8 << 20,
    open_files=32,
)
HONEST = Program("print(sum(map(int, input().split())))", stdin=b"1 2 3\n", limits=Limits(wall_s=20))
SECRET = "SANDBOX_TEST_SECRET"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Things of the host that the programs look for: a server, a file, a variable."""
    file = tmp_path_factory.mktemp("host") / "private.txt"
    file.write_text("private")
    os.environ[SECRET] = "1"
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"@PORT@": str(server.getsockname()[1]), "@FILE@": str(file), "@SECRET@": SECRET}
    del os.environ[SECRET]


def filled(code: str, host: dict[str, str]) -> str:
    for mark, value in host.items():
        code = code.replace(mark, value)
    return code


def descendants(root: int | None = None) -> set[int]:
    """All living descendants of a process; None: of this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    found, pending = set(), [root or os.getpid()]
    while pending:
        for child in children.get(pending.pop(), []):
            found.add(child)
            pending.append(child)
    return found


@pytest.fixture(scope="module")
def outcomes(host, sandbox: Sandbox) -> dict[str, tuple[Outcome, Outcome]]:
    """By name, how each of them and the honest program that ran beside it ended."""
    sandbox.run(HONEST)  # starts the watchdog, which stays
    before = descendants()
    programs = [
        program for hostile in HOSTILE for program in (Program(filled(hostile.code, host), limits=LIMITS), HONEST)
    ]
    ended = sandbox.map(sandbox.run, programs, workers=2)
    assert descendants() <= before, "something still runs"
    names = (hostile.name for hostile in HOSTILE)
    return dict(zip(names, zip(ended[::2], ended[1::2], strict=True), strict=True))


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_a_hostile_program_fails_alone(hostile, outcomes):
    attack, honest = outcomes[hostile.name]
    assert not (attack.reason == "exited" and attack.stdout.strip() == b"6"), "the attack worked"
    assert attack.seconds < WALL_S + SLACK_S
    assert honest.ok and honest.stdout == b"6\n"


def test_hostile_programs_write_nothing(host, outcomes):
    assert len(outcomes) > 30
    assert Path(host["@FILE@"]).read_text() == "private"
    assert not [path for path in ("/evil", "/usr/lib/evil", "/dev/evil") if Path(path).exists()]


def test_programs_of_other_sandboxes_are_out_of_reach(sandbox: Sandbox):
    """A bomb may use up the processes of its own user id, not those of the sandbox beside it."""
    bomb = Program("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", limits=LIMITS)
    forks = Program(
        "import os, time\nfor _ in range(8):\n    if os.fork() == 0: time.sleep(0.05); os._exit(0)\nprint('forked')",
        limits=Limits(wall_s=20, processes=16),
    )
    outcomes = sandbox.map(sandbox.run, [bomb, forks, bomb, forks], workers=2)
    assert [outcome.stdout for outcome in outcomes[1::2]] == [b"forked\n"] * 2

"""harness.sandbox.memory_group: what the kernel counts beyond resident memory, and machines without groups."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.sandbox import Limits, Program, Sandbox, memory_group
from harness.sandbox.program import MIB

# maps one page of every second one: 60,000 mappings of 4 KiB are 13 MB of the kernel's, and next to nothing of one's
# own; waits before, since what was allocated before a process joined its group stays uncounted; and for
# its children, since a program ends with its first process
MAPPINGS = (
    "import mmap, os, sys, time\nfor _ in range(3): os.fork()\ntime.sleep(1.5)\n"
    "m = mmap.mmap(-1, 120000 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
    "import ctypes\nc = ctypes.CDLL(None)\nat = ctypes.addressof(ctypes.c_char.from_buffer(m))\n"
    "for n in range(0, 120000, 2): c.mprotect(ctypes.c_void_p(at + n * 4096), 4096, 1)\n"
    "time.sleep(3)\nprint(6, flush=True)\ntry:\n while True: os.wait()\nexcept ChildProcessError: pass"
)


@pytest.fixture(autouse=True)
def _looks_again():
    memory_group._parent.cache_clear()
    yield
    memory_group._parent.cache_clear()


def has_groups() -> bool:
    return memory_group._parent(os.getpid()) is not None


@pytest.mark.skipif(not has_groups(), reason="no control groups can be made here")
def test_a_group_ends_what_uses_more_and_leaves_nothing(monkeypatch):
    """A child that joins and takes 64 MiB under a limit of 32 is killed; without joining it is not."""
    monkeypatch.setattr(memory_group, "_OWN_BYTES", 0)
    code = "import sys; sys.stdin.read(1); x = b'x' * (64 << 20); print(len(x))"
    ended = {}
    _, folder = memory_group._parent(os.getpid())
    before = set(folder.iterdir())
    for joins in (True, False):
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with memory_group.memory_group(32 * MIB) as join:
            if joins:
                join(child.pid)
            ended[joins] = child.communicate(b"x")[0]
    assert ended == {True: b"", False: b"67108864\n"}
    assert set(folder.iterdir()) <= before


@pytest.mark.skipif(not has_groups(), reason="no control groups can be made here")
def test_groups_of_killed_harnesses_are_removed():
    _, folder = memory_group._parent(os.getpid())
    left = folder / f"{memory_group._PREFIX}4194305-0"  # above the largest pid
    left.mkdir()
    memory_group._parent.cache_clear()
    assert has_groups() and not left.exists()


def test_without_groups_programs_run_all_the_same(monkeypatch, sandbox: Sandbox, tmp_path):
    monkeypatch.setattr(memory_group, "_OWN_GROUP", tmp_path / "none")
    assert not has_groups()
    program = Program("import time\ntime.sleep(0.5)\nprint(6)", limits=Limits(wall_s=20))
    assert sandbox.run(program).stdout == b"6\n"


@pytest.mark.parametrize(
    ("groups", "mounts", "subtree", "found"),
    [
        ("4:memory:/job\n0::/\n", "1 2 0:1 / {root}/memory rw - cgroup cgroup rw,memory", {}, [(1, "memory/job")]),
        ("4:memory:/docker/x\n", "1 2 0:1 /docker/x {root}/memory rw - cgroup c rw,memory", {}, [(1, "memory/.")]),
        ("0::/user/a\n", "1 2 0:1 / {root} rw shared:1 - cgroup2 cgroup2 rw", {"user": "cpu memory"}, [(2, "user")]),
        ("0::/user/a\n", "1 2 0:1 / {root} rw - cgroup2 cgroup2 rw", {"user": "cpu"}, []),
        ("4:cpu:/\n", "1 2 0:1 / {root}/cpu rw - cgroup cgroup rw,cpu", {}, []),
    ],
    ids=["version 1", "version 1 in a container", "version 2", "version 2 without memory", "no memory controller"],
)
def test_where_groups_can_be(groups: str, mounts: str, subtree: dict, found: list, tmp_path, monkeypatch):
    for name, controllers in subtree.items():
        (tmp_path / name / "a").mkdir(parents=True)
        (tmp_path / name / "cgroup.subtree_control").write_text(controllers)
    for name, attribute, text in (("own", "_OWN_GROUP", groups), ("mounts", "_MOUNTS", mounts)):
        (tmp_path / name).write_text(text.format(root=tmp_path))
        monkeypatch.setattr(memory_group, attribute, tmp_path / name)
    candidates = [(version, os.path.relpath(group, tmp_path)) for version, group in memory_group._candidates()]
    assert candidates == [(version, os.path.normpath(group)) for version, group in found]


@pytest.mark.skipif(not has_groups(), reason="no control groups can be made here")
def test_memory_of_the_kernel_counts_for_a_program(monkeypatch, sandbox: Sandbox):
    """Eight processes of 60,000 mappings each: some 100 MB that are nobody's resident memory, under a limit of 64."""
    monkeypatch.setattr(memory_group, "_OWN_BYTES", 0)
    limits = Limits(wall_s=15, memory_bytes=600 * MIB, disk_bytes=MIB, processes=16)
    outcomes = {}
    for name, limit in (("free", 2048 * MIB), ("limited", 64 * MIB)):
        real = memory_group._make
        monkeypatch.setattr(memory_group, "_make", lambda _, limit=limit, real=real: real(limit))
        outcomes[name] = sandbox.run(Program(MAPPINGS, limits=limits))
        monkeypatch.setattr(memory_group, "_make", real)
    assert outcomes["free"].ok and outcomes["free"].stdout == b"6\n" * 8
    assert not outcomes["limited"].ok

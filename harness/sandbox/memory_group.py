"""A control group for a program, where this machine lets us make one: the kernel's own count of all the memory in use.

Resident memory leaves out what the kernel keeps on a program's behalf: page tables, buffers of pipes, inodes, names. A
control group counts nearly all of it and needs no looking. Root has one as a rule, version 1 or 2; an ordinary user
where the system has delegated a part of version 2's tree. Without one, the filter of system calls and the supervisor's
looks have to do.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.sandbox.program import MIB

_MOUNTS, _OWN_GROUP = Path("/proc/self/mountinfo"), Path("/proc/self/cgroup")
_PREFIX = "opd-sandbox-"
_EMPTY_S = 2.0  # for the processes of a group to be gone after their end
_OWN_BYTES = 128 * MIB  # on top of a program's limits: for bubblewrap, the interpreter's start, the kernel's own
# by version of the control groups: the file of the limit, and files of which some kernels lack one
_LIMIT = {1: "memory.limit_in_bytes", 2: "memory.max"}
_OPTIONAL = {1: (), 2: (("memory.swap.max", "0"), ("memory.oom.group", "1"))}
_numbers = itertools.count()


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Callable[[int], None]]:
    """A group with this limit, while this lasts; made when it is needed.

    Gives the function that moves a process into it; what the process starts afterwards is in it from the beginning.
    Where there are no groups, the function does nothing. A move takes some milliseconds, in which the kernel waits for
    all processors.
    """
    made: list[Path | None] = []

    def join(pid: int) -> None:
        if not made:
            made.append(_make(limit_bytes))
        if (group := made[0]) is not None:
            with suppress(OSError):  # the process may have ended
                (group / "cgroup.procs").write_text(str(pid))

    try:
        yield join
    finally:
        for group in made:
            if group is not None:
                _remove(group)


def _make(limit_bytes: int) -> Path | None:
    found = _parent(os.getpid())
    if found is None:
        return None
    version, parent = found
    group = parent / f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
    with suppress(OSError):
        group.mkdir()
        (group / _LIMIT[version]).write_text(str(limit_bytes + _OWN_BYTES))
        for name, value in _OPTIONAL[version]:
            with suppress(OSError):
                (group / name).write_text(value)
        return group
    _remove(group)
    return None


def _remove(group: Path) -> None:
    """Its processes have been killed; it can be removed once the kernel has buried the last one."""
    deadline = time.monotonic() + _EMPTY_S
    while group.exists():
        with suppress(OSError):
            group.rmdir()
            return
        if time.monotonic() >= deadline:
            return  # another harness that starts here removes it
        time.sleep(0.002)


@functools.lru_cache(maxsize=1)
def _parent(harness: int) -> tuple[int, Path] | None:
    """The version of the control groups and the group in which this process may make others; None without one.

    Args:
        harness: this process; a fork looks again.
    """
    for version, folder in _candidates():
        trial = folder / f"{_PREFIX}{harness}-trial"
        with suppress(OSError):
            _remove_left_over(folder)
            trial.mkdir()
            try:
                (trial / _LIMIT[version]).write_text(str(_OWN_BYTES))
                return version, folder
            finally:
                trial.rmdir()
    return None


def _candidates() -> Iterator[tuple[int, Path]]:
    """Groups above or around this process whose members' memory can be counted.

    Of version 1 that is its own group. In version 2 a group with processes has no groups of its own with limits, the
    root excepted, so that the one around it is tried as well.
    """
    with suppress(OSError):
        own = {}
        for line in _OWN_GROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own[1 if "memory" in controllers.split(",") else 2 if not controllers else 0] = path
        for line in _MOUNTS.read_text().splitlines():
            before, _, after = line.partition(" - ")
            root, mount = before.split()[3:5]
            kind, _, options = after.split(" ", 2)
            version = 2 if kind == "cgroup2" else 1 if kind == "cgroup" and "memory" in options.split(",") else 0
            if version not in own or version == 0:
                continue
            folder = Path(mount) / os.path.relpath(own[version], root) if own[version].startswith(root) else Path(mount)
            for group in (folder,) if version == 1 else (folder, folder.parent):
                if version == 1 or _counts_members(group):
                    yield version, group


def _counts_members(group: Path) -> bool:
    with suppress(OSError):
        return "memory" in (group / "cgroup.subtree_control").read_text().split()
    return False


def _remove_left_over(folder: Path) -> None:
    """Groups of harnesses that were killed. One that is in use cannot be removed."""
    for group in folder.glob(f"{_PREFIX}*"):
        number = group.name.removeprefix(_PREFIX).split("-")[0]
        if not Path(f"/proc/{number}").exists():
            with suppress(OSError):
                group.rmdir()

"""What hostile programs cost the machine that grades them: `python -m tests.measure.hostile [NAME ...]`.

Grades each program of tests/livecodebench/hostile.py in both modes and prints a row of docs/reliability.md: the
results, seconds, and the memory that the grader and the program took at most, the kernel's on their behalf included.
Where no control group can be made (of version 1) to count that, it is how much less memory was available to others at
worst, and what else runs on the machine falls into the figure.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.sandbox import Sandbox, memory_group
from tasks.livecodebench_v6.grading import MODES, grade_row
from tests.livecodebench.hostile import ATTACKS

_LOOK_S = 0.01
HONEST = {"code": "print(input())", "inputs": ["1"], "outputs": ["1"], "fn_name": None}


def available_bytes() -> int:
    """Memory that the host could give to others, by its own estimate."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/meminfo does not say what is available")


@contextmanager
def lost_bytes() -> Iterator[list[int]]:
    """Afterwards the list's one entry is the memory that was taken at most while this lasted."""
    memory_group._parent.cache_clear()
    version, parent = memory_group._parent(os.getpid()) or (None, None)
    if version != 1 or parent is None:
        with _lost_by_the_machine() as lost:
            yield lost
        return
    group = memory_group._make(available_bytes())
    assert group is not None
    lost = [0]
    _move([str(os.getpid())], group)
    try:
        yield lost
    finally:
        lost[0] = int((group / "memory.max_usage_in_bytes").read_text())
        _move((group / "cgroup.procs").read_text().split(), parent)
        memory_group._remove(group)


def _move(processes: list[str], group: Path) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            (group / "cgroup.procs").write_text(process)
    memory_group._parent.cache_clear()  # programs get groups within the one of the grader


@contextmanager
def _lost_by_the_machine() -> Iterator[list[int]]:
    start, lost, ended = available_bytes(), [0], threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_S):
            lost[0] = max(lost[0], start - available_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(ATTACKS))
    sandbox = Sandbox.detect(allow_unsafe=False)
    print(
        "| goes for | program | mode | results | seconds | memory taken, MiB |\n| --- | --- | --- | --- | ---: | ---: |"
    )
    for name in parser.parse_args().names:
        for mode in MODES:
            grade_row(HONEST, mode, sandbox)  # what a grader loads once is loaded
            began = time.monotonic()
            with lost_bytes() as lost:
                grade = grade_row(ATTACKS[name].row, mode, sandbox)
            took = time.monotonic() - began
            print(
                f"| {ATTACKS[name].kind} | {name} | {mode} | {grade['results']} | {took:.1f} | {lost[0] / 2**20:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

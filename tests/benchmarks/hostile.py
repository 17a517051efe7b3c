"""What hostile programs cost the machine that grades them: `python tests/benchmarks/hostile.py [NAME ...]`.

Grades each program of tests/livecodebench/hostile.py in both modes and prints a row of docs/reliability.md: the results,
seconds, and by how much the memory that is available to others fell at most meanwhile. What else runs on the machine
falls into that figure.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.sandbox import Sandbox
from tasks.livecodebench_v6.grading import MODES, grade_row
from tests.livecodebench.hostile import ATTACKS

_LOOK_S = 0.01


def available_bytes() -> int:
    """Memory that the host could give to others, by its own estimate."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/meminfo does not say what is available")


@contextmanager
def lost_bytes() -> Iterator[list[int]]:
    """While this lasts, the list's one entry is how much less memory has been available at worst than at the start."""
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
        "| goes for | program | mode | results | seconds | host loses, MiB |\n| --- | --- | --- | --- | ---: | ---: |"
    )
    for name in parser.parse_args().names:
        for mode in MODES:
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

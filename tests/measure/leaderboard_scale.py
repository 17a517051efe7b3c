"""`python tests/measure/leaderboard_scale.py [--runs 500] [--problems 5000]`: a results folder of that size, and its
leaderboard.

Makes the folder in a temporary place, builds its leaderboard three times by the command of a user (the third time after
one row has changed), and prints seconds, peak memory and whether the change was noticed. Exit code 1 beyond 60 s or 1
GiB.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harness.results.record import Counters, Evaluation, RunRecord, load_record, write_record

LIMIT_S, LIMIT_BYTES = 60.0, 2**30
SEEDS = 5
SAMPLES = 4


def write_folder(folder: Path, runs: int, problems: int) -> None:
    """`runs` records of runs / 5 methods on 5 seeds, their accuracies about 0.5, methods unlike by up to 5 points."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 1.5, problems)
    for number in range(runs):
        method, seed = number // SEEDS, number % SEEDS
        name = "opd" if method == 0 else f"method{method}"
        logits = difficulty + 0.002 * method + 0.05 * rng.normal() + 0.5 * rng.normal(size=problems)
        correct = rng.binomial(SAMPLES, 1 / (1 + np.exp(-logits)))
        score = float(correct.sum()) / (problems * SAMPLES)
        evaluation = Evaluation("bench", "p", problems, SAMPLES, score, 0.0, 100.0, tuple(correct.tolist()))
        counters = Counters(10, 1000, 0, 1000, 1.0, 1.0, 1.0, 1.0, 2**30)
        record = RunRecord(name, {}, {}, {"name": "scale"}, "hash", seed, "completed", "", counters, (evaluation,))
        write_record(folder / name / f"seed{seed}" / "record.json", record)


def change_a_row(folder: Path) -> None:
    """One more success in one record of OPD."""
    path = folder / "opd" / "seed0" / "record.json"
    record = load_record(path)
    (evaluation,) = record.evaluations
    correct = list(evaluation.correct)
    correct[correct.index(0)] = SAMPLES
    score = sum(correct) / (evaluation.problems * SAMPLES)
    changed = dataclasses.replace(evaluation, correct=tuple(correct), score=score)
    write_record(path, dataclasses.replace(record, evaluations=(changed,)))


def build(folder: Path) -> tuple[float, float]:
    """Seconds of the command, and OPD's mean accuracy in the table that it wrote."""
    started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-m", "harness.leaderboard", str(folder)], check=True, capture_output=True)
    seconds = time.perf_counter() - started
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
    print(f"{seconds:.1f} s, of which {cpu:.1f} s of a processor", flush=True)
    content = json.loads((folder / "leaderboard.json").read_text())
    row = next(row for row in content["rows"] if row["label"] == "opd")
    return seconds, row["scores"]["bench"]["interval"]["estimate"]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Builds the leaderboard of a large results folder.")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--problems", type=int, default=5000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "scale-00000000"
        write_folder(folder, options.runs, options.problems)
        cold, before = build(folder)
        again, same = build(folder)
        change_a_row(folder)
        changed, after = build(folder)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(
        f"{options.runs} runs x {options.problems} problems: cold {cold:.1f} s, again {again:.1f} s, changed "
        f"{changed:.1f} s"
    )
    print(
        f"peak memory {peak / 2**20:.0f} MiB; the same table again: {before == same}; a change is noticed: "
        f"{after > before}"
    )
    return int(max(cold, again, changed) > LIMIT_S or peak > LIMIT_BYTES or before != same or after <= before)


if __name__ == "__main__":
    sys.exit(main())

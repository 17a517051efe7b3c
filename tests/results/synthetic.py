"""Small run records with known success counts, and a comparison folder made of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.results.record import Counters, Evaluation, RunRecord, write_record

FILES = ["leaderboard.csv", "leaderboard.json", "leaderboard.md", "leaderboard.tex"]  # of a table
SETTING = {"name": "tiny", "learning_rate": 0.001, "steps": 10, "optimiser": {"beta": 0.9}}
PROVENANCE = {
    "commit": "0123456789abcdef0123",
    "dirty": False,
    "versions": {"torch": "2.13.0"},
    "python": "3.11.9",
    "hardware": "a processor",
    "cores": 2,
}


def evaluation(correct: Sequence[int], samples: int = 4, task: str = "arithmetic", protocol: str = "p1") -> Evaluation:
    """An evaluation with these success counts per problem."""
    score = sum(correct) / (len(correct) * samples)
    return Evaluation(task, protocol, len(correct), samples, score, 0.125, 20.0, tuple(correct))


def run(method: str, seed: int, correct: Sequence[int] | None = None, **changes: Any) -> RunRecord:
    """A completed run, evaluated where `correct` is given."""
    values: dict[str, Any] = {
        "method": method,
        "knobs": {"alpha": 1.0},
        "changed_knobs": {},
        "setting": SETTING,
        "training_hash": "aaaa1111",
        "seed": seed,
        "status": "completed",
        "counters": Counters(10, 1000 + seed, 50, 900, 1.5, 2.5, 3.5, 0.5, (100 + seed) * 2**20),
        "evaluations": () if correct is None else (evaluation(correct),),
        "provenance": PROVENANCE,
        "started_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:05:05+00:00",
    }
    return RunRecord(**{**values, **changes})


SAMPLES = {"greedy": 1, "paper": 4, "sampled": 4, "": 4}  # of a decoding
Solved = Mapping[str, int]  # decoding -> solved samples of each problem


def decoded(decoding: str, solved: int, protocol: str | None = None) -> Evaluation:
    """8 problems under a decoding, each solved in as many samples."""
    named = evaluation([solved] * 8, SAMPLES[decoding], protocol=protocol or f"{decoding or 'own'}-protocol")
    return dataclasses.replace(named, decoding=decoding)


def decoded_runs(solved: Mapping[str, Solved], seeds: int = 3) -> list[RunRecord]:
    """Every method on every seed, which all come out the same."""
    return [
        run(method, seed, evaluations=tuple(decoded(name, count) for name, count in under.items()))
        for method, under in solved.items()
        for seed in range(seeds)
    ]


def replicate(method: str, seed: int, student: str, **inputs: str | None) -> RunRecord:
    """A run on a student of its own: another path, other weights, another training hash."""
    content = {"student": f"sha256:{student}", "teacher": "sha256:t", "prompts": "sha256:p", "recipe": "r1", **inputs}
    return run(
        method,
        seed,
        [1, 2],
        training_hash=f"hash of {student}",
        setting={**SETTING, "student": f"students/{student}"},
        provenance={"inputs": {key: value for key, value in content.items() if value is not None}},
    )


def write_runs(folder: Path, records: Iterable[RunRecord]) -> Path:
    """Lays the records out as a comparison folder, a stand-in suffix for the hash of changed knobs."""
    for record in records:
        suffix = "-" + "_".join(map(str, record.changed_knobs.values())) if record.changed_knobs else ""
        write_record(folder / f"{record.method}{suffix}" / f"seed{record.seed}" / "record.json", record)
    return folder


def write_metrics(folder: Path, method: str, seed: int, rows: Iterable[Mapping[str, float]]) -> None:
    """Writes the metrics.jsonl of a run of `write_runs`."""
    path = folder / method / f"seed{seed}" / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def small_comparison() -> list[RunRecord]:
    """Student, teacher, three methods on seeds 0..2 and eight problems of four samples, and two runs that failed."""
    base = [4, 3, 2, 1, 0, 2, 3, 1]  # 16 of 32
    records = [run("student", 0, [1, 0, 0, 0, 1, 0, 0, 0]), run("teacher", 0, [4, 4, 4, 4, 4, 4, 3, 4])]
    for seed in range(3):
        turned = base[seed:] + base[:seed]
        records.append(run("opd", seed, turned))
        records.append(run("tropd", seed, [min(count + 1, 4) for count in turned]))
    records += [run("eopd", 0, base), run("eopd", 1, base[1:] + base[:1])]
    records.append(run("eopd", 2, status="failed", reason="the loss is not finite\nat step 7"))
    records.append(run("reopold", 0, status="started", finished_at=""))
    return records

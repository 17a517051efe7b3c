"""Run folders with everything that the page shows: metrics, sampled texts, credit of tokens."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.results.record import RunRecord, load_record
from tests.results.synthetic import run, small_comparison, write_runs

NASTY = '<script>alert(1)</script> \x00\x1b[31m & "quoted" \u202egnp.exe\u2028end \ud800'  # what a model may write


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A .jsonl file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def metrics_rows(steps: int, level: float = 0.0) -> list[dict[str, float]]:
    """A row per step, as harness.training.recorder writes them; `level` moves every metric."""
    return [
        {
            "step": step,
            "grad_norm": 1.0 + level + step / steps,
            "learning_rate": 1e-3,
            "loss": 0.5,
            "tokens/student": 100.0,
            "tokens/scored": 150.0,
            "kl/reverse_k1": 0.5 + level,
            "kl/total_variation": 0.1,
            "outlier/frac": 0.05,
            "entropy/student": 0.4,
            **{f"reward/{name}": -level for name in ("q001", "q01", "q50", "q99")},
            "length/completion": 30.0,
            "length/prefix": max(0.0, 10.0 - step),
            "truncated_frac": 0.0,
            "credit/kept_frac": 0.9,
            **({"start/arithmetic_dev": 0.1 + level} if step == 1 else {}),
            **({"eval/arithmetic_dev": 0.2 + 0.01 * step + level} if step % 5 == 0 else {}),
        }
        for step in range(1, steps + 1)
    ]


def sample_rows(steps: Sequence[int], tokens: Sequence[str]) -> list[dict[str, Any]]:
    """samples.jsonl: a prefix token, then trusted, outlier and uncredited tokens in turn."""
    count = len(tokens)
    kinds = ["prefix", *(("trusted", "outlier", "none")[i % 3] for i in range(count - 1))]
    return [
        {
            "step": step,
            "prompt_id": f"train-{step}",
            "prompt": f"question {step}",
            "prefix_len": 1,
            "stop_reason": "stop",
            "tokens": list(tokens),
            "reward": [-2.0] * count,
            "advantage": [-2.0 if kind == "trusted" else 0.0 for kind in kinds],
            "divergence_weight": [float(kind == "outlier") for kind in kinds],
            "imitation_weight": [0.001 * (kind == "prefix") for kind in kinds],
        }
        for step in steps
    ]


def write_everything(
    folder: Path,
    records: Sequence[RunRecord],
    *,
    steps: int = 20,
    text: str = "an answer",
    tokens: Sequence[str] = ("The", " answer", " is", " 7", "\n"),
    private: bool = False,
    metrics: Collection[str] | None = None,
) -> Path:
    """The records as run folders, with all files of each; `metrics`: only these keys (None: all), for quicker pages."""
    write_runs(folder, records)
    for path in sorted(folder.glob("*/seed*/record.json")):
        record = load_record(path)
        items: list[dict[str, Any]] = []
        texts: list[dict[str, Any]] = []
        shown = {"text": None if private else f"{text} by {record.method}", "extracted": "secret" if private else "7"}
        for evaluation in record.evaluations:
            for problem, solved in enumerate(evaluation.correct):
                for repeat in range(evaluation.samples):
                    key = {"task": evaluation.task, "protocol_hash": evaluation.protocol_hash}
                    key |= {"item_id": f"item-{problem}", "repeat": repeat}
                    items.append({**key, "correct": float(repeat < solved), "tokens": 5, "stop_reason": "stop"})
                    texts.append({**key, **shown})
                    if repeat == 0 and not private:
                        texts[-1] |= {"problem": f"question {problem}?", "reference": "7"}
        if items:
            write_rows(path.parent / "items.jsonl", items)
            write_rows(path.parent / "texts.jsonl", texts)
        if record.method not in ("student", "teacher"):
            rows = metrics_rows(steps, 0.1 * record.seed)
            kept = [{k: v for k, v in row.items() if metrics is None or k in ("step", *metrics)} for row in rows]
            write_rows(path.parent / "metrics.jsonl", kept)
            write_rows(path.parent / "samples.jsonl", sample_rows([1, steps // 2, steps], tokens))
    return folder


def comparison() -> list[RunRecord]:
    """The small comparison, with a method whose knob was changed."""
    changed = {"knobs": {"alpha": 0.5}, "changed_knobs": {"alpha": 0.5}}
    return [*small_comparison(), run("aopd", 0, [1, 2, 3, 4, 0, 0, 1, 1], **changed)]

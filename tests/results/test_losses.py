"""What a run that was scored on nothing says of its training."""

from __future__ import annotations

import json
from pathlib import Path

from harness.results.losses import loss_lines


def test_the_first_and_the_last_steps(tmp_path: Path) -> None:
    """Losses 1, 2, 3, 4, 5: a window of 2 steps, 1.5 and 4.5. Untrained rows have no steps and no line."""
    trained, untrained = tmp_path / "opd" / "seed0", tmp_path / "student" / "seed0"
    for folder in (trained, untrained):
        folder.mkdir(parents=True)
    rows = [{"step": k, "loss": float(k), "length/completion": 10.0} for k in range(1, 6)]
    (trained / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert loss_lines([trained, untrained]) == [
        "opd seed0, first and last 2 of 5 steps: loss 1.5 -> 4.5; tokens a completion 10 -> 10"
    ]

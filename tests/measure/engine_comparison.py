"""One comparison made by two engines: the paired difference of every method over the seeds, Holm's p-values over the
methods.

    .venv-vllm/bin/python -m harness.run engine=vllm engine.evaluation=hf results_dir=runs
    python tests/measure/engine_comparison.py results/tiny_cpu runs/tiny_cpu-<hash8>

Exit status 1 if a difference is significant at 1 %. The rows of the untrained student and teacher are left out of the
family.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.results.sides import load_side, pair_up
from harness.results.statistics import holm
from harness.types import UNTRAINED

LEVEL = 0.01


def main() -> int:
    """Prints a line per method; 1 if one differs."""
    a, b = (load_side(Path(name)) for name in sys.argv[1:3])
    pairs = [pair for pair in pair_up(a, b) if pair.label not in UNTRAINED]
    adjusted = holm([pair.difference.p_value for pair in pairs])
    engines = [next(record.engine for record in side if record.method not in UNTRAINED) for side in (a, b)]
    print(f"A = {sys.argv[1]} (engine {engines[0]}), B = {sys.argv[2]} (engine {engines[1]})")
    for pair, p_value in zip(pairs, adjusted, strict=True):
        scores = f"A {100 * pair.a.estimate:.1f}, B {100 * pair.b.estimate:.1f}"
        change = (
            f"B minus A {100 * pair.difference.estimate:+.1f} [{100 * pair.difference.low:.1f}, "
            f"{100 * pair.difference.high:.1f}]"
        )
        print(
            f"{pair.task} {pair.label}, seeds {', '.join(pair.seeds)}: {scores}, {change}, p {p_value:.3f} after Holm"
        )
    return int(any(p_value < LEVEL for p_value in adjusted))


if __name__ == "__main__":
    sys.exit(main())

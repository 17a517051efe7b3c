"""The table "distance to the teacher": how far each method's students are from it on held-out prompts.

Values are nats per token, prompt by prompt (record.Distance), so the matrix [S, I] of seeds and prompts has the crossed
variance of harness.results.variance, with a symmetric interval: a divergence has no upper end. Where every seed has
prompts of its own no prompt component exists, and its estimate is zero but for noise. Differences are paired by seed
and prompt.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from harness.results.record import Distance, RunRecord, methods_together
from harness.results.statistics import CONFIDENCE, Difference, Interval, detectable_ratio, holm, mean_interval
from harness.results.variance import Array, compute_mean_variance
from harness.types import UNTRAINED

_ALPHA = 1 - CONFIDENCE
HEADER = ("method", "seeds", "reverse KL", "minus {}", "forward KL")
SAMPLE_HEADER = ("method", "reverse KL, completion", "tokens", "entropy S / T", "end S / T", "elsewhere S / T")
MEANS = ("entropy", "stop_at_end", "stop_elsewhere")
BySeed = Mapping[int, Distance]


@dataclass(frozen=True)
class DistanceRow:
    """The measured runs of one label; intervals in nats."""

    label: str
    seeds: tuple[int, ...]
    reverse: Interval  # per token, on the student's samples
    difference: Difference | None  # of it, to the baseline on the seeds that both have
    difference_seeds: tuple[int, ...]
    forward: Interval  # per token, on the teacher's samples
    completion_kl: Interval  # reverse, nats per completion
    tokens: float  # mean of the student's samples
    means: dict[str, float]  # over seeds, of Distance.means


@dataclass(frozen=True)
class DistanceTable:
    """Everything that is printed of it."""

    source: str  # of the prompts, in words
    distance_hash: str
    prompts: int
    baseline: str
    rows: tuple[DistanceRow, ...]  # the student, then the methods, nearest first
    nearest: str | None  # its reverse KL is resolved to be below every other method's
    refused: str = ""  # why there are no rows


def build_distances(records: Sequence[RunRecord], baseline: str) -> DistanceTable | None:
    """The table of the completed runs that were measured; None where none was.

    Values of different definitions, or of one seed on different prompts, are not shown together: the table then holds
    the reason alone, and the rest of the leaderboard stands.
    """
    found: dict[str, dict[int, Distance]] = {}
    method_of = {record.label: record.method for record in records}
    for record in records:
        if record.status == "completed" and record.distance is not None:
            found.setdefault(record.label, {})[record.seed] = record.distance
    if not found:
        return None
    example = next(iter(found[min(found)].values()))
    empty = DistanceTable(
        source=example.source,
        distance_hash=example.distance_hash,
        prompts=len(example.reverse),
        baseline=baseline,
        rows=(),
        nearest=None,
    )
    if reason := _mixture(found):
        return dataclasses.replace(empty, refused=reason)
    rows = [_row(label, runs, found.get(baseline, {}), is_baseline=label == baseline) for label, runs in found.items()]
    rows.sort(key=lambda row: (row.label not in UNTRAINED, row.reverse.estimate, row.label))
    rows = methods_together(rows, lambda row: method_of[row.label])
    methods = {label: runs for label, runs in found.items() if label not in UNTRAINED}
    return dataclasses.replace(empty, rows=tuple(rows), nearest=_nearest(methods))


def _mixture(found: Mapping[str, BySeed]) -> str:
    """Why these must not stand in one table, or nothing."""
    known: dict[object, tuple[str, str]] = {}
    for label, runs in found.items():
        for seed, distance in runs.items():
            name = f"{label} seed {seed}"
            for key, value in (("all", distance.distance_hash), (seed, distance.prompts_digest)):
                other, before = known.setdefault(key, (name, value))
                if before != value:
                    what = "in different ways" if key == "all" else "on different prompts"
                    return f"{other} and {name} were measured {what}; run the comparison again, which measures anew."
    return ""


def _row(label: str, runs: BySeed, base: BySeed, is_baseline: bool) -> DistanceRow:
    seeds = tuple(sorted(runs))
    shared = () if is_baseline else tuple(sorted(set(runs) & set(base)))
    tokens = np.array([runs[seed].tokens for seed in seeds])
    keys = sorted(set.intersection(*(set(runs[seed].means) for seed in seeds)))
    return DistanceRow(
        label=label,
        seeds=seeds,
        reverse=real_interval(_matrix(runs, seeds)),
        difference=real_difference(_matrix(runs, shared), _matrix(base, shared)) if shared else None,
        difference_seeds=shared,
        forward=real_interval(np.array([runs[seed].forward for seed in seeds])),
        completion_kl=real_interval(_matrix(runs, seeds) * tokens),
        tokens=float(tokens.mean()),
        means={key: float(np.mean([runs[seed].means[key] for seed in seeds])) for key in keys},
    )


def _matrix(runs: BySeed, seeds: Sequence[int]) -> Array:
    """[S, I], reverse KL."""
    return np.array([runs[seed].reverse for seed in seeds])


def _nearest(methods: Mapping[str, BySeed]) -> str | None:
    """The method whose reverse KL is below every other's: all pairs on two or more shared seeds, Holm, 5 %."""
    pairs: list[tuple[str, str]] = []
    p_values: list[float] = []
    for a, b in combinations(sorted(methods), 2):
        shared = sorted(set(methods[a]) & set(methods[b]))
        if len(shared) > 1:
            difference = real_difference(_matrix(methods[a], shared), _matrix(methods[b], shared))
            pairs.append((a, b) if difference.estimate < 0 else (b, a))
            p_values.append(difference.p_value)
    resolved = {pair for pair, p in zip(pairs, holm(p_values), strict=True) if p <= _ALPHA}
    return next((a for a in methods if len(methods) > 1 and all((a, b) in resolved for b in methods if b != a)), None)


@dataclass(frozen=True)
class DistancePair:
    """A label of A beside one of B, measured alike on shared seeds."""

    label: str  # `a` where both have it, else `a / b`
    seeds: tuple[int, ...]
    a: Interval  # reverse KL per token
    b: Interval
    difference: Difference  # b - a


def pair_distances(
    a: Sequence[RunRecord], b: Sequence[RunRecord], labels: Sequence[tuple[str, str]]
) -> list[DistancePair]:
    """The reverse KL of both sides for each pair of labels, on the seeds that were measured alike, on the same
    prompts.
    """
    pairs = []
    for left, right in labels:
        runs_a, runs_b = _by_seed(a, left), _by_seed(b, right)
        shared = [s for s in sorted(set(runs_a) & set(runs_b)) if _definition(runs_a[s]) == _definition(runs_b[s])]
        if shared:
            y_a, y_b = _matrix(runs_a, shared), _matrix(runs_b, shared)
            pair = DistancePair(
                label=left if left == right else f"{left} / {right}",
                seeds=tuple(shared),
                a=real_interval(y_a),
                b=real_interval(y_b),
                difference=real_difference(y_b, y_a),
            )
            pairs.append(pair)
    return pairs


def _by_seed(records: Sequence[RunRecord], label: str) -> dict[int, Distance]:
    """Of a label's completed runs that were measured."""
    mine = [record for record in records if record.label == label and record.status == "completed"]
    return {record.seed: record.distance for record in mine if record.distance is not None}


def _definition(distance: Distance) -> tuple[str, str]:
    return distance.distance_hash, distance.prompts_digest


def real_interval(y: Array, least: float = 0.0) -> Interval:
    """The 95 % interval of the mean of values [S, I] that have no upper end, cut off at `least`; with one seed, over
    prompts for this checkpoint alone.
    """
    estimate = compute_mean_variance(y)
    error = math.sqrt(estimate.variance)
    half = float(estimate.quantile(_ALPHA)) * error
    mean = float(estimate.mean)
    return Interval(
        estimate=mean,
        low=max(mean - half, least),
        high=mean + half,
        standard_error=error,
        df=float(estimate.df),
        seeds=y.shape[0],
        problems=y.shape[1],
    )


def real_difference(a: Array, b: Array) -> Difference:
    """The mean of a − b [S, I], paired by seed and prompt, with its 95 % interval and a two-sided test of 0.

    `improvement` is the chance that a is *below* b on a prompt and seed, ties as one half: nearer is better.
    """
    interval = real_interval(a - b, least=-math.inf)
    law = compute_mean_variance(a - b)
    error = interval.standard_error
    statistic = interval.estimate / error if error else math.copysign(math.inf, interval.estimate)
    p_value = float(law.two_sided_tail(abs(statistic))) if error else float(interval.estimate == 0)
    quantile = float(law.quantile(_ALPHA))
    return Difference(
        **vars(interval),
        statistic=statistic,
        p_value=p_value,
        detectable=error * detectable_ratio(quantile, interval.df),
        improvement=mean_interval((1 - np.sign(a - b)) / 2),
    )


def header(table: DistanceTable) -> tuple[str, ...]:
    """Of `cells`."""
    return tuple(name.format(table.baseline) for name in HEADER)


def cells(table: DistanceTable, nothing: str, mark: str) -> tuple[tuple[str, ...], ...]:
    """A row of texts per label; `nothing` stands where no value is, `mark` behind an interval of one seed."""
    rows = []
    for row in table.rows:
        difference = nothing
        if row.difference is not None:
            where = "" if row.difference_seeds == row.seeds else f" on seeds {_join(row.difference_seeds)}"
            difference = format_nats(row.difference, mark, "+") + where
        reverse, forward = (format_nats(value, mark) for value in (row.reverse, row.forward))
        rows.append((row.label, _join(row.seeds), reverse, difference, forward))
    return tuple(rows)


def sample_cells(table: DistanceTable, nothing: str, mark: str) -> tuple[tuple[str, ...], ...]:
    """What the students' samples say besides, under SAMPLE_HEADER."""

    def both(row: DistanceRow, name: str) -> str:
        values = [row.means.get(f"{side}_{name}") for side in ("student", "teacher")]
        scale, digits = (1, 3) if name == "entropy" else (100, 2)
        return " / ".join(nothing if value is None else f"{scale * value:.{digits}f}" for value in values)

    return tuple(
        (row.label, format_nats(row.completion_kl, mark), f"{row.tokens:.1f}", *(both(row, name) for name in MEANS))
        for row in table.rows
    )


def format_nats(value: Interval, mark: str, sign: str = "") -> str:
    """`0.448 [0.351, 0.544]`, with a sign before each number if one is asked for."""
    text = f"{value.estimate:{sign}.3f} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"
    return text + (mark if value.seeds == 1 else "")


def note(table: DistanceTable) -> str:
    """What the table is, and its verdict."""
    if table.refused:
        return f"Mixtures refused: {table.refused}"
    verdict = (
        f"Nearest: {table.nearest}; its reverse KL is below every other method's, resolved"
        if table.nearest
        else "No method's reverse KL is resolved to be below every other's"
    )
    return (
        f"{verdict} (all pairs, Holm-corrected, 5 %). Nats per token with 95 % intervals over prompts and training "
        f"seeds; lower is nearer, the teacher's own is 0. Reverse KL(S || T) is on the student's samples, forward "
        f"KL(T || S) on the teacher's, both exact over the vocabulary. {table.prompts} prompts: {table.source} "
        f"(measurement {table.distance_hash[:8]})."
    )


SAMPLE_NOTE = (
    "On the student's samples: the reverse KL of a completion (nats), tokens, the entropies of student S and teacher T "
    "in nats, and their probability of ending, in %, where the sample ended and elsewhere."
)


def _join(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))

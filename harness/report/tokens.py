"""Training completions with each token's credit, from samples.jsonl (harness.results.samples)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.divergences import HARD_OUTLIER
from harness.report.plots import format_value

KINDS: Mapping[str, str] = {  # of a token, and how their numbers are told
    "up": "made more likely",
    "down": "made less likely",
    "none": "with hardly any advantage",
    "direct": "with a direct gradient",
    "prefix": "written by the teacher",
}
HEADER = ("token", "r", "log π_T", "log π_S", "advantage", "divergence weight", "imitation weight")
_COLUMNS = ("reward", "teacher_logprob", "student_logprob", "advantage", "divergence_weight", "imitation_weight")
_TOKENS = 6000  # shown in the whole page
_FEWEST_TOKENS = 40  # of a completion
_MANY_LABELS, _FEW_STEPS = 6, 4
_STRENGTHS = (0.1, 1.0, 3.0)  # nats; advantages above each are drawn stronger, below the first not at all


@dataclass(frozen=True)
class Token:
    """A token as it is shown."""

    text: str
    sign: str  # up, down or none, by its advantage; prefix
    strength: int  # 0 … 3, of the advantage
    is_direct: bool  # the direct gradient on the teacher's top k
    numbers: tuple[str, ...]  # of HEADER, but the first

    @property
    def told(self) -> str:
        """Everything about it, for the pointer."""
        r, teacher, student, advantage, divergence, imitation = self.numbers
        return (
            f"“{self.text}”\nr = {r} nats: log π_T {teacher}, log π_S {student}\n"
            f"credit: advantage {advantage}, divergence weight {divergence}, imitation weight {imitation}"
        )


@dataclass(frozen=True)
class Completion:
    """One method's completion."""

    label: str
    tokens: tuple[Token, ...]
    left_out: int  # tokens after those
    stop_reason: str
    counts: Mapping[str, int]  # tokens of each of KINDS, all of the completion


@dataclass(frozen=True)
class StepCompletions:
    """What the methods wrote for the same prompt at the same step."""

    step: int
    prompt_id: str
    prompt: str
    completions: tuple[Completion, ...]
    outliers: int  # tokens of all the completions with r below HARD_OUTLIER


def busiest_step(steps: Sequence[StepCompletions]) -> int:
    """Which of the steps has most outliers, the first of several: what there is to see is there."""
    return max(range(len(steps)), key=lambda number: steps[number].outliers, default=0)


def build_steps(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[StepCompletions]:
    """The steps of samples.jsonl, those of one prompt together, methods in the order given."""
    steps = sorted({int(row["step"]) for rows in samples.values() for row in rows})
    if len(samples) > _MANY_LABELS and len(steps) > _FEW_STEPS:
        steps = [steps[round(i * (len(steps) - 1) / (_FEW_STEPS - 1))] for i in range(_FEW_STEPS)]
    limit = max(_FEWEST_TOKENS, _TOKENS // max(1, len(steps) * len(samples)))
    groups: dict[tuple[int, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for label, rows in samples.items():
        for row in rows:
            if row["step"] in steps:
                groups.setdefault((int(row["step"]), str(row["prompt_id"])), []).append((label, row))
    return [
        StepCompletions(
            step=step,
            prompt_id=prompt_id,
            prompt=str(rows[0][1]["prompt"]),
            completions=tuple(_completion(label, row, limit) for label, row in rows),
            outliers=sum(_outliers(row) for _, row in rows),
        )
        for (step, prompt_id), rows in sorted(groups.items(), key=lambda entry: entry[0])
    ]


def _outliers(row: Mapping[str, Any]) -> int:
    rewards = row["reward"][int(row["prefix_len"]) :]
    return sum(reward is not None and reward < HARD_OUTLIER for reward in rewards)


def _completion(label: str, row: Mapping[str, Any], limit: int) -> Completion:
    texts = list(map(str, row["tokens"]))
    columns = [row.get(key) or [None] * len(texts) for key in _COLUMNS]
    tokens = [
        _token(text, numbers, position < int(row["prefix_len"]))
        for position, (text, *numbers) in enumerate(zip(texts, *columns, strict=True))
    ]
    counts = {kind: sum(token.sign == kind for token in tokens) for kind in KINDS}
    counts["direct"] = sum(token.is_direct for token in tokens)
    return Completion(
        label=label,
        tokens=tuple(tokens[:limit]),
        left_out=max(0, len(tokens) - limit),
        stop_reason=str(row["stop_reason"]),
        counts=counts,
    )


def _token(text: str, numbers: Sequence[float | None], is_prefix: bool) -> Token:
    """`numbers`: of HEADER, but the first; None: a model was not asked, or an older run did not keep it."""
    advantage, divergence = numbers[3] or 0.0, numbers[4] or 0.0
    strength = sum(abs(advantage) > bound for bound in _STRENGTHS)
    sign = "prefix" if is_prefix else "none" if not strength else "up" if advantage > 0 else "down"
    return Token(
        text=text,
        sign=sign,
        strength=0 if is_prefix else strength,
        is_direct=not is_prefix and divergence > 0,
        numbers=tuple("–" if value is None else format_value(value) for value in numbers),
    )

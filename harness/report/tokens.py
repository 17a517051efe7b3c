"""Training completions with each token's credit, from samples.jsonl (harness.results.samples)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.plots import format_value

KINDS: Mapping[str, str] = {
    "trusted": "trusted: the advantage on the sampled token, stronger where it is larger",
    "outlier": "outlier: the direct gradient on the teacher's top k instead",
    "both": "advantage and direct gradient",
    "none": "no credit",
    "prefix": "prefix: written by the teacher",
}
HEADER = ("token", "log π_T − log π_S", "advantage", "divergence weight", "imitation weight")
_COLUMNS = ("reward", "advantage", "divergence_weight", "imitation_weight")
_TOKENS = 6000  # shown in the whole page
_FEWEST_TOKENS = 40  # of a completion
_MANY_LABELS, _FEW_STEPS = 6, 4
_STRENGTHS = (0.1, 1.0, 3.0)  # nats; advantages above each are drawn stronger


@dataclass(frozen=True)
class Token:
    """A token as it is shown."""

    text: str
    kind: str  # of KINDS
    strength: int  # 0 … 3, of an advantage
    is_negative: bool  # the advantage makes the token less likely
    numbers: tuple[str, ...]  # of HEADER, but the first


@dataclass(frozen=True)
class Completion:
    """One method's completion."""

    label: str
    tokens: tuple[Token, ...]
    left_out: int  # tokens after those
    stop_reason: str
    counts: Mapping[str, int]  # tokens of each kind, all of the completion


@dataclass(frozen=True)
class StepCompletions:
    """What the methods wrote for the same prompt at the same step."""

    step: int
    prompt_id: str
    prompt: str
    completions: tuple[Completion, ...]


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
            step, prompt_id, str(rows[0][1]["prompt"]), tuple(_completion(label, row, limit) for label, row in rows)
        )
        for (step, prompt_id), rows in sorted(groups.items(), key=lambda entry: entry[0])
    ]


def _completion(label: str, row: Mapping[str, Any], limit: int) -> Completion:
    tokens = [
        _token(position, str(text), int(row["prefix_len"]), *numbers)
        for position, (text, *numbers) in enumerate(zip(row["tokens"], *(row[key] for key in _COLUMNS), strict=True))
    ]
    counts = {kind: sum(token.kind == kind for token in tokens) for kind in KINDS}
    return Completion(
        label=label,
        tokens=tuple(tokens[:limit]),
        left_out=max(0, len(tokens) - limit),
        stop_reason=str(row["stop_reason"]),
        counts=counts,
    )


def _token(
    position: int,
    text: str,
    prefix_len: int,
    reward: float | None,
    advantage: float,
    divergence: float,
    imitation: float,
) -> Token:
    strength = sum(abs(advantage) > bound for bound in _STRENGTHS)
    numbers = tuple(
        "–" if value is None else format_value(value) for value in (reward, advantage, divergence, imitation)
    )
    kind = "prefix" if position < prefix_len else _own_kind(reward, advantage, divergence)
    return Token(
        text=text,
        kind=kind,
        strength=strength if kind in ("trusted", "both") else 0,
        is_negative=kind == "trusted" and advantage < 0,
        numbers=numbers,
    )


def _own_kind(reward: float | None, advantage: float, divergence: float) -> str:
    """What a token that the student wrote got. Where both models agree exactly, the advantage of a
    trusted token is 0.
    """
    if divergence > 0:
        return "both" if advantage else "outlier"
    return "trusted" if advantage or not reward else "none"

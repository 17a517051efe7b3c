"""What a run costs before it has run: sizes of models, floating-point operations, memory. Estimates, with their
arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.models.sizes import model_size
from harness.results.record import Counters, RunRecord

PUBLISHED_FLOPS = "cost/flops"  # the key of RunRecord.training; published, since a table can outlive its models
# Runs cost the same up to this factor: a budget of operations is met within it (harness.training.budget).
EQUAL_COST = 1.02
MODELS = ("student", "teacher")
TOKENS = {  # field of Counters -> the metric that it sums up
    "student_tokens": "tokens/student",
    "teacher_tokens": "tokens/teacher",
    "reference_tokens": "tokens/reference",
    "scored_tokens": "tokens/scored",
    "student_scored_tokens": "tokens/student_scored",
}


def counters_of(rows: Sequence[Mapping[str, float]]) -> Counters:
    """What the steps of these metrics cost in tokens."""
    return Counters(
        steps=len(rows), **{name: int(sum(row.get(key, 0) for row in rows)) for name, key in TOKENS.items()}
    )


def known_sizes(setting: Mapping[str, Any]) -> tuple[int, int] | None:
    """Parameters of a setting's student and teacher; None where one is not here and not known."""
    found = [model_size(setting[role], setting.get(f"{role}_revision")) for role in MODELS]
    return (found[0].parameters, found[1].parameters) if found[0] is not None and found[1] is not None else None


def training_flops(student_parameters: int, teacher_parameters: int, counters: Counters) -> float:
    """Floating-point operations of a run's training, from the tokens that it wrote and scored.

        2·P_S·(tokens that the student wrote or scored) + 2·P_T·(tokens that the teacher wrote or scored)
        + 6·P_S·(tokens of the updates, whoever wrote them)

    A forward pass is two operations per parameter and token, a backward pass four (Kaplan et al., arXiv 2001.08361,
    section 2.1). The teacher's cached text counts at every use, as if it were written for it. Not counted: prompts,
    attention's part that grows with the length, heads that the direct term reads again, evaluation.
    """
    updated = counters.student_tokens + counters.teacher_tokens + counters.reference_tokens
    student = 2 * (counters.student_tokens + counters.student_scored_tokens) + 6 * updated
    teacher = 2 * (counters.teacher_tokens + counters.scored_tokens)
    return float(student_parameters * student + teacher_parameters * teacher)


def training_seconds(counters: Counters) -> float:
    """Wall clock of a run's training."""
    return counters.rollout_s + counters.scoring_s + counters.update_s


def run_flops(record: RunRecord) -> float | None:
    """`training_flops` of a finished run: what its record says, else by its models; None if they are not here."""
    if (recorded := recorded_flops(record)) is not None:
        return recorded
    if not set(MODELS) <= record.setting.keys():
        return None
    sizes = known_sizes(record.setting)
    return None if sizes is None else training_flops(*sizes, record.counters)


def recorded_flops(record: RunRecord) -> float | None:
    """What the record itself says of it; None in those of runs that did not count."""
    return record.training.get(PUBLISHED_FLOPS) or record.counters.operations or None

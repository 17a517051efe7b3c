"""What a run costs before it has run: sizes of models, floating-point operations, memory. Estimates, with their
arithmetic.
"""

from __future__ import annotations

from harness.models.sizes import model_size
from harness.results.record import Counters, RunRecord

PUBLISHED_FLOPS = "cost/flops"  # the key of RunRecord.training; published, since a table can outlive its models
MODELS = ("student", "teacher")


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


def run_flops(record: RunRecord) -> float | None:
    """`training_flops` of a finished run: what its published record says, else by its models; None if they are not
    here.
    """
    if PUBLISHED_FLOPS in record.training:
        return record.training[PUBLISHED_FLOPS]
    if not set(MODELS) <= record.setting.keys():
        return None
    student, teacher = (model_size(record.setting[role], record.setting.get(f"{role}_revision")) for role in MODELS)
    if student is None or teacher is None:
        return None
    return training_flops(student.parameters, teacher.parameters, record.counters)

"""Compared of two models against sums over the whole vocabulary in float64."""

import torch

from harness.diagnosis import positions as module
from harness.diagnosis.positions import distances
from harness.numerics.logprobs import Head
from harness.numerics.loss import TeacherRows


def test_equals_the_sums_written_out(monkeypatch) -> None:
    """13 positions, 40 tokens, two models of different width; in chunks of 4 positions."""
    monkeypatch.setattr(module, "rows_per_chunk", lambda *_: 4)
    generator = torch.Generator().manual_seed(0)
    sides = [
        TeacherRows(
            torch.randn(13, n, generator=generator).double(), Head(torch.randn(40, n, generator=generator).double())
        )
        for n in (6, 9)
    ]
    ids = torch.randint(40, (13,), generator=generator)
    found = distances(sides[0], sides[1], ids, top_k=3, stop_ids=(5, 7))
    for i in range(13):
        p, q = ((side.hidden[i] @ side.head.weight.T).softmax(-1).tolist() for side in sides)
        log = [(torch.tensor(x, dtype=torch.float64).log()).tolist() for x in (p, q)]
        top = sorted(range(40), key=lambda v: -q[v])[:3]
        expected = {
            "student": log[0][ids[i]],
            "teacher": log[1][ids[i]],
            "student_entropy": -sum(p[v] * log[0][v] for v in range(40)),
            "teacher_entropy": -sum(q[v] * log[1][v] for v in range(40)),
            "reverse": sum(p[v] * (log[0][v] - log[1][v]) for v in range(40)),
            "forward": sum(q[v] * (log[1][v] - log[0][v]) for v in range(40)),
            "total_variation": 1 - sum(min(p[v], q[v]) for v in range(40)),
            "teacher_topk_mass": sum(q[v] for v in top),
            "student_topk_mass": sum(p[v] for v in top),
            "student_stop": p[5] + p[7],
            "teacher_stop": q[5] + q[7],
        }
        assert set(expected) == set(vars(found))
        for name, value in expected.items():
            assert abs(float(getattr(found, name)[i]) - value) < 1e-12, name

"""Two steps of every default method on real weights: with itself as teacher, with a perturbed one, killed and resumed,
and the page of it all.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.config.settings import RunConfig
from harness.config.sweep import planned_runs
from harness.report.__main__ import write_report
from harness.results.record import read_metrics
from harness.results.samples import read_samples
from harness.training.job import run_job
from harness.training.trainer import DistillationTrainer

pytestmark = pytest.mark.real

METHODS = ("opd", "eopd", "reopold", "tropd")
STEPS = 2
PLAIN = "evaluation.distance=null"  # where the distance to the teacher is not what is looked at
NOISE = 0.02  # of the perturbed teacher's weights, relative to each one's spread


@pytest.fixture(scope="module")
def perturbed(smollm2, tmp_path_factory) -> str:
    """The same model with noise in every matrix."""
    source, folder = Path(smollm2), tmp_path_factory.mktemp("perturbed")
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).symlink_to(path.resolve())
    generator = torch.Generator().manual_seed(0)
    weights = load_file(source / "model.safetensors")
    noisy = {
        name: (w + NOISE * w.float().std() * torch.randn(w.shape, generator=generator)).to(w.dtype)
        if w.dim() > 1
        else w
        for name, w in weights.items()
    }
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def config(smollm2: str, teacher: str, method: str, results: Path, *more: str) -> RunConfig:
    """Two steps of two prompts, in bfloat16, where both models are scored by the same passes."""
    prompts = results / "prompts.jsonl"
    questions = ("What is 3 plus 4?", "Name a colour.", "Is the sea blue?", "Write a word.")
    prompts.write_text("".join(json.dumps({"prompt": question}) + "\n" for question in questions))
    given = [
        *("setting=custom", "setting.name=real", f"setting.student={smollm2}", f"setting.teacher={teacher}"),
        *(f"setting.prompts={prompts}", "setting.dtype=bfloat16", "setting.samples_per_prompt=1"),
        *("setting.max_new_tokens=16", "setting.prompts_per_step=2", f"setting.steps={STEPS}", "setting.top_k=8"),
        *("setting.learning_rate=1e-5", "engine.micro_batch_prompts=1", "engine.device=cpu", "evaluation=none"),
        *(f"method={method}", "seed=0", f"results_dir={results}"),
    ]
    (run,) = planned_runs([*given, *more])
    return run


@pytest.mark.parametrize("method", METHODS)
def test_a_teacher_that_is_the_student_gives_no_credit(smollm2, tmp_path, method: str) -> None:
    """Exactly: no advantage, no outlier; nor a divergence but where EOPD adds one on whatever it is unsure of."""
    run = config(smollm2, smollm2, method, tmp_path, PLAIN)
    record = run_job(run)
    assert record.status == "completed", record.reason
    rows, samples = read_metrics(run.run_folder()), read_samples(run.run_folder())
    assert len(rows) == STEPS and samples
    # the second step's student is another one only if the first had something to learn from
    first = rows[0]
    assert first["kl/reverse_k1"] == 0
    assert first["outlier/frac"] == 0
    assert first["credit/advantage"] == 0
    assert first["loss/policy"] == 0
    assert set(samples[0]["advantage"]) == {0}
    if method != "eopd":
        assert first["loss/divergence"] == 0


@pytest.fixture(scope="module")
def whole(smollm2, perturbed, tmp_path_factory) -> Path:
    """The comparison's folder: every method, two steps with the perturbed teacher."""
    results = tmp_path_factory.mktemp("whole")
    runs = [config(smollm2, perturbed, method, results) for method in METHODS]
    for run in runs:
        assert (record := run_job(run)).status == "completed", record.reason
    return runs[0].run_folder().parents[1]


def test_a_perturbed_teacher_is_learned_from(smollm2, whole) -> None:
    before = load_file(Path(smollm2) / "model.safetensors")
    for method in METHODS:
        folder = whole / method / "seed0"
        rows = read_metrics(folder)
        assert all(row["kl/total_variation"] > 0.01 for row in rows)
        assert all(0 < row["grad_norm"] < 1e4 for row in rows)
        after = load_file(folder / "checkpoint" / "model.safetensors")
        assert any(not torch.equal(after[name], weight) for name, weight in before.items())


def test_a_killed_run_ends_as_one_that_was_not(smollm2, perturbed, whole, tmp_path, monkeypatch) -> None:
    """Stopped in the second step, after a checkpoint of the first; the same rows and weights to the last bit."""
    run = config(smollm2, perturbed, "opd", tmp_path, "engine.save_every=1", PLAIN)
    assign = DistillationTrainer.assign_credit

    def dies(self, *given):
        if self.state.global_step == 1:
            raise RuntimeError("killed")
        return assign(self, *given)

    monkeypatch.setattr(DistillationTrainer, "assign_credit", dies)
    assert run_job(run).status == "failed"
    assert len(read_metrics(run.run_folder())) == 1
    monkeypatch.undo()
    assert run_job(run).status == "completed"
    expected = whole / "opd" / "seed0"
    for ours, theirs in zip(read_metrics(run.run_folder()), read_metrics(expected), strict=True):
        for key in ("loss", "grad_norm", "kl/reverse_k1"):
            assert ours[key] == theirs[key]
    weights = [load_file(folder / "checkpoint" / "model.safetensors") for folder in (run.run_folder(), expected)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_page_of_it(whole, tmp_path) -> None:
    write_report(whole, tmp_path / "page.html", "test")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(method in text for method in METHODS)

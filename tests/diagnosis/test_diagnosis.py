"""The diagnosis against enumeration and hand-worked numbers, and its command on tiny pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness import diagnose as door
from harness.config.sweep import planned_runs
from harness.diagnosis import gradients, meaning, projection
from harness.diagnosis import run as run_module
from harness.diagnosis.pair import describe_pair
from harness.diagnosis.positions import Compared
from harness.diagnosis.projection import Projection
from harness.training.loaded import load_models
from harness.training.prompts import prompts_of
from harness.types import Rollout

PROMPTS = "harness/tiny/prompts.jsonl"


def arguments(pair: Path, methods: str = "opd,reverse_kl") -> list[str]:
    """A pair of random models in float64."""
    folders = [f"setting.student={pair / 'student'}", f"setting.teacher={pair / 'teacher'}"]
    sizes = ["setting.max_new_tokens=6", "setting.top_k=8", "setting.prompts_per_step=4"]
    common = ["setting=custom", "setting.name=pair", f"setting.prompts={PROMPTS}", "setting.dtype=float64"]
    return [*common, *folders, *sizes, f"method={methods}", "seed=0", "evaluation=none"]


@pytest.fixture(scope="module")
def opened(random_pair, tmp_path_factory):
    """Trainers of OPD and the two divergences, on one student in float64."""
    runs = planned_runs(arguments(random_pair, "opd"))
    models = load_models(runs[0])
    prompts = prompts_of(runs[0].setting, models.tokenizer)
    return run_module._trainers(runs, models, prompts, tmp_path_factory.mktemp("trainers")), models, prompts


def rollout(prompt, ids: tuple[int, ...], logprobs: tuple[float, ...]) -> Rollout:
    return Rollout(prompt.ids, ids, 0, logprobs, 0, "length", prompt.prompt_id, 0)


def test_expected_gradients_by_enumeration(opened) -> None:
    """One state, all 64 tokens: OPD's gradient, weighted by each token's probability, is the exact reverse KL's, and
    that is the derivative of the sum over the vocabulary; so is the forward KL's.
    """
    trainers, models, prompts = opened
    student, teacher = models.student, models.teacher
    parameters = {n: p for n, p in student.named_parameters() if p.requires_grad}
    project = Projection(parameters)
    ids = torch.tensor([prompts[0].ids])
    log_s, log_t = (model.model(ids).last_hidden_state[0, -1] @ model.lm_head.weight.T for model in (student, teacher))
    log_s, log_t = log_s.log_softmax(-1), log_t.log_softmax(-1).detach()
    divergences = {
        "reverse KL": (log_s.exp() * (log_s - log_t)).sum(),
        "forward KL": (log_t.exp() * (log_t - log_s)).sum(),
    }
    truth = {
        name: project.project(
            torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
        )
        for name, value in divergences.items()
    }
    expected = torch.zeros_like(truth["reverse KL"].vector("all"))
    for token, logprob in enumerate(log_s.tolist()):
        found = gradients.batch_gradients(trainers, [rollout(prompts[0], (token,), (logprob,))], project)
        expected += torch.tensor(logprob).exp() * found["opd"].sketch.vector("all")
        for name, sketch in truth.items():
            torch.testing.assert_close(found[name].sketch.vector("all"), sketch.vector("all"), rtol=0, atol=1e-7)
            assert found[name].sketch.norm == pytest.approx(sketch.norm, abs=1e-7)
    torch.testing.assert_close(expected, truth["reverse KL"].vector("all"), rtol=0, atol=1e-6)


def test_a_gradient_is_the_trainers_own(opened) -> None:
    """Two completions of different lengths; against the loss that the trainer itself would back-propagate."""
    trainers, models, prompts = opened
    parameters = {n: p for n, p in models.student.named_parameters() if p.requires_grad}
    texts = [rollout(prompts[0], (5, 9, 4), (-1.0, -2.0, -3.0)), rollout(prompts[1], (7, 3), (-2.0, -2.5))]
    found = gradients.batch_gradients(trainers, texts, Projection(parameters))
    for name, trainer in trainers.items():
        step = trainer.assign_credit(gradients.Written(texts), 0.0, range(2))
        (batch,) = gradients.micro_batches(step, [2])
        loss, _ = trainer.model(**batch)
        expected = Projection(parameters).project(
            torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        )
        assert expected.norm > 0
        torch.testing.assert_close(found[name].sketch.vector("all"), expected.vector("all"), rtol=0, atol=1e-9)
        assert len(found[name].token_norms) == 5


def test_a_projection_keeps_inner_products(monkeypatch) -> None:
    """Groups as large as the projection lose nothing; folded 30 times, a cosine of 1/2 is off by a few times
    1/√width.
    """
    sizes = {"model.embed_tokens.weight": (40, 8), "layers.0.self_attn.q.weight": (8, 8), "layers.0.mlp.up": (9, 8)}
    parameters = {name: torch.nn.Parameter(torch.zeros(size)) for name, size in (*sizes.items(), ("norm.weight", (8,)))}
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(p.shape, generator=generator) for p in parameters.values()]
    whole = Projection(parameters)
    assert whole.groups() == ["embedding", "attention", "feed-forward", "other"]
    sketch = whole.project(ours)
    exact = sum(float(x.square().sum()) for x in ours)
    assert sketch.norm**2 == pytest.approx(exact) == float(sketch.vector("all").square().sum())
    large = {"a.mlp": torch.nn.Parameter(torch.zeros(3, 10_240)), "b.mlp": torch.nn.Parameter(torch.zeros(77))}
    monkeypatch.setattr(projection, "WIDTH", 1024)
    x, noise = (torch.randn(30_720 + 77, generator=generator) for _ in range(2))
    y = x + 3**0.5 * noise
    folded = Projection(large)
    found = [folded.project([v[:30_720].view(3, -1), v[30_720:]]).vector("all") for v in (x, y)]
    assert len(found[0]) == 1024
    assert gradients.cosine(*found) == pytest.approx(gradients.cosine(x, y), abs=4 / 32)
    assert gradients.cosine(x, y) == pytest.approx(0.5, abs=0.02)


def test_signal_to_noise_by_hand() -> None:
    """Gradients (3, 0) and (1, 0): mean 2, S = 2, |ḡ|² − S/2 = 3, so √(3/2); of (1, 0) and (−1, 0) nothing is left."""
    assert gradients.signal_to_noise(torch.tensor([[3.0, 0.0], [1.0, 0.0]])) == pytest.approx(1.5**0.5)
    assert gradients.signal_to_noise(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == 0
    assert gradients.signal_to_noise(torch.zeros(3, 2)) == 0


def test_numbers_of_a_pair_by_hand() -> None:
    """Two completions, of 3 tokens (ended) and 2 (cut); rewards 0, −6, −7 and −1, −2: the first hard outlier is at
    position 2 of one completion of the two.
    """
    zeros = torch.zeros(5)
    student = torch.tensor([-1.0, -1.0, -1.0, -1.0, -1.0])
    teacher = student + torch.tensor([0.0, -6.0, -7.0, -1.0, -2.0])
    stops = torch.tensor([0.1, 0.1, 0.8, 0.2, 0.4])
    columns = dict.fromkeys(Compared.__dataclass_fields__, zeros)
    columns |= {"student": student, "teacher": teacher, "student_stop": stops, "reverse": torch.full((5,), 2.0)}
    ended = Rollout((1,), (5, 6, 1), 0, (0.0,) * 3, 0, "stop", "a", 0)
    cut = replace(ended, completion_ids=(5, 6), stop_reason="length")
    pair = describe_pair(Compared(**columns), torch.tensor([1, 2, 3, 1, 2]), [ended, cut])
    assert (pair["completions"], pair["mean_length"], pair["truncated"]) == (2, 2.5, 0.5)
    assert (pair["with_hard_outlier"], pair["first_hard_outlier"]) == (0.5, 2.0)
    assert pair["hard_outliers"] == pytest.approx(2 / 5)
    assert pair["k1"] == pytest.approx(16 / 5)
    # K1 minus the exact value 2: −2, 4, 5, −1, 0
    assert pair["k1_deviation"] == pytest.approx(((4 + 16 + 25 + 1) / 5) ** 0.5)
    assert pair["stops"]["student_at_end"] == pytest.approx(0.8)
    assert pair["stops"]["student_elsewhere"] == pytest.approx(0.2)
    assert [(row["positions"], row["tokens"]) for row in pair["by_position"]] == [("1", 2), ("2–3", 3)]


def test_the_worst_tokens_share(opened) -> None:
    """200 tokens of norm 1, the two of the lowest reward of norm 51: 102 of 300."""
    rewards, norms = torch.linspace(1, -1, 200), torch.ones(200)
    norms[-2:] = 51
    sketch = projection.Sketch(1.0, {"other": torch.ones(3)})
    batches = [gradients.BatchGradient(sketch, part) for part in norms.split(100)]
    found = gradients.summarise(dict.fromkeys(("m", *gradients.REFERENCES), batches), rewards, ["other"])
    assert found["m"].worst_share == pytest.approx(102 / 300)
    assert found["m"].cosine_reverse == {"all": pytest.approx(1), "other": pytest.approx(1)}


def test_the_command_writes_three_files(random_pair, tmp_path, capsys) -> None:
    given = [*arguments(random_pair), "completions=8", "batches=2", f"output={tmp_path}"]
    assert door.main(given) == 0
    found = json.loads((tmp_path / "pair" / "diagnosis.json").read_text())
    assert found["pair"]["completions"] == 8
    rows = found["gradients"]
    assert set(rows) == {"opd", "reverse_kl", "reverse KL", "forward KL"}
    for key in ("norm", "signal_to_noise", "cosine_reverse"):  # the method of that name is the divergence itself
        assert rows["reverse_kl"][key] == pytest.approx(rows["reverse KL"][key], rel=1e-4)
    assert rows["reverse KL"]["cosine_reverse"]["all"] == pytest.approx(1)
    assert (tmp_path / "pair" / "diagnosis.md").read_text() == capsys.readouterr().out.removesuffix("\n")
    assert "signal to noise" in (tmp_path / "pair" / "diagnosis.html").read_text()


def test_a_student_that_is_its_teacher(random_pair, tmp_path) -> None:
    """Nothing is apart, no gradient is left, and the numbers are numbers."""
    same = f"setting.teacher={random_pair / 'student'}"
    given = [a for a in arguments(random_pair, "opd,tropd") if not a.startswith("setting.teacher=")]
    assert door.main([*given, same, "completions=4", "batches=2", f"output={tmp_path}"]) == 0
    found = json.loads((tmp_path / "pair" / "diagnosis.json").read_text())
    assert found["pair"]["total_variation"] < 1e-9
    assert found["pair"]["hard_outliers"] == 0
    assert found["gradients"]["opd"]["norm"] < 1e-9


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["method=student"], "not trained"),
        (["method=sft"], "does not write"),
        (["batches=1"], "two batches"),
        (["seed=0,1"], "one seed"),
        (["completions=some"], "whole number"),
    ],
)
def test_bad_input_is_a_sentence(random_pair, tmp_path, capsys, more: list[str], said: str) -> None:
    keys = {a.partition("=")[0] for a in more}
    given = [a for a in arguments(random_pair) if a.partition("=")[0] not in keys]
    assert door.main([*given, *more, f"output={tmp_path}"]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_how_far_two_pairs_are_apart() -> None:
    """One number of four is 4 times as large: √((log 4)² / 4) = log 2."""
    there = dict.fromkeys(meaning.COMPARED, 0.1)
    assert meaning.distance(there, there) == pytest.approx(1)
    assert meaning.distance(there | {"reverse_kl": 0.4}, there) == pytest.approx(2)


def test_published_differences_are_those_of_the_leaderboard() -> None:
    assert meaning.differences("tiny_cpu")["tropd"] == "-5.3 [-23.7, 13.0]"  # as in results/tiny_cpu/leaderboard.md

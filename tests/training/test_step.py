"""The trainer as a whole on random tiny models: equal conditions, split invariance, knobs off = OPD bit for bit."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.eopd import EOPD
from baselines.gkd import GKD
from baselines.opd import OPD
from baselines.reopold import REOPOLD
from baselines.reopold_2stage import REOPOLDTwoStage
from baselines.tropd import TrOPD
from harness.config.settings import EvaluationConfig, RunConfig, Setting
from harness.console.progress import RunProgress
from harness.models.loading import load_model
from harness.results.record import read_metrics
from harness.rollout.hf import HFEngine
from harness.scoring.hf import HFScorer
from harness.training.loaded import load_models
from harness.training.train import train
from harness.training.trainer import DistillationTrainer
from harness.types import Method, SignalRequest, TokenCredit
from tests.conftest import execution

STEPS = 3


class AlwaysTrusted(TrOPD):
    """TrOPD with the gate forced open."""

    def trust_probability(self, reward: torch.Tensor) -> torch.Tensor:
        return torch.full_like(reward, 2.0)


NO_EVALUATION = EvaluationConfig(
    tasks=[],
    samples={},
    max_new_tokens={},
    sampling={},
    cut_decimals=[],
    data_dir=None,
    allow_unsandboxed_code=False,
    dev_task=None,
    dev_every=1000,
)


def config_for(random_pair: Path, tmp_path: Path, method: Method | None, **changes: Any) -> RunConfig:
    prompts = tmp_path / "prompts.jsonl"
    if not prompts.exists():
        rows = [f"Start with {i % 10} , add {i % 7} . What is the result mod 1 0 ?" for i in range(24)]
        prompts.write_text("".join(json.dumps({"id": str(i), "prompt": row}) + "\n" for i, row in enumerate(rows)))
    setting = {
        "name": "test",
        "student": str(random_pair / "student"),
        "teacher": str(random_pair / "teacher"),
        "prompts": str(prompts),
        "prompts_split": "train",
        "student_revision": None,
        "teacher_revision": None,
        "dtype": "float32",
        "max_prompt_tokens": 64,
        "max_new_tokens": 16,
        "min_continuation": 1,
        "prompts_per_step": 8,
        "samples_per_prompt": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 8,
        "steps": STEPS,
        "learning_rate": 1e-3,
        "lr_schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "max_grad_norm": 1.0,
    }
    micro = changes.pop("micro_batch_prompts", 8)
    seed = changes.pop("seed", 0)
    return RunConfig(
        setting=Setting(**{**setting, **changes}),
        method_name="test",
        method=method,
        engine=execution(micro_batch_prompts=micro),
        evaluation=NO_EVALUATION,
        seed=seed,
        results_dir=tmp_path,
        fresh=False,
        expect=[],
    )


def run(config: RunConfig, folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Trains; returns final weights and the rows of metrics.jsonl."""
    folder.mkdir(parents=True)
    train(config, folder, RunProgress(folder / "progress.json", config.setting.steps))
    return load_model(str(folder / "checkpoint")).state_dict(), read_metrics(folder)


def assert_same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.fixture(scope="module")
def opd_run(
    random_pair: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    root = tmp_path_factory.mktemp("opd")
    return run(config_for(random_pair, root, OPD()), root / "run")


def test_the_learning_curve_begins_before_the_first_step_and_changes_no_draw(
    random_pair: Path, tmp_path: Path, opd_run
) -> None:
    """The row of step 1 has the score of the student that the run began with: a curve of rate 0 is level."""
    scored = dataclasses.replace(
        NO_EVALUATION,
        dev_task="arithmetic_dev",
        dev_every=2,
        samples={"arithmetic_dev": 1},
        max_new_tokens={"arithmetic_dev": 8},
    )
    config = dataclasses.replace(config_for(random_pair, tmp_path, OPD()), evaluation=scored)
    weights, rows = run(config, tmp_path / "run")
    assert_same_weights(weights, opd_run[0])
    assert [row["step"] for row in rows if "start/arithmetic_dev" in row] == [1]
    assert [row["step"] for row in rows if "eval/arithmetic_dev" in row] == [2, STEPS]
    still = dataclasses.replace(config, setting=dataclasses.replace(config.setting, learning_rate=0.0))
    _, rows = run(still, tmp_path / "still")
    assert rows[0]["start/arithmetic_dev"] == rows[1]["eval/arithmetic_dev"] == rows[2]["eval/arithmetic_dev"]


@pytest.mark.parametrize(
    "method", [AlwaysTrusted(prefix_schedule="none"), EOPD(entropy_threshold=math.inf), REOPOLD(floor=-math.inf)]
)
def test_a_method_with_its_knobs_off_is_opd_bit_for_bit(
    random_pair: Path, tmp_path: Path, opd_run, method: Method
) -> None:
    weights, rows = run(config_for(random_pair, tmp_path, method), tmp_path / "run")
    assert_same_weights(weights, opd_run[0])
    assert [row["loss"] for row in rows] == [row["loss"] for row in opd_run[1]]


def test_the_same_run_twice_is_identical(random_pair: Path, tmp_path: Path, opd_run) -> None:
    weights, _ = run(config_for(random_pair, tmp_path, OPD()), tmp_path / "run")
    assert_same_weights(weights, opd_run[0])


def test_another_seed_is_another_run(random_pair: Path, tmp_path: Path, opd_run) -> None:
    weights, _ = run(config_for(random_pair, tmp_path, OPD(), seed=1), tmp_path / "run")
    assert any(not torch.equal(value, opd_run[0][name]) for name, value in weights.items())


@pytest.mark.parametrize("method", [OPD(), EOPD(), REOPOLDTwoStage(t_switch=0.0), TrOPD(), GKD(student_share=1.0)])
def test_accumulation_changes_nothing(random_pair: Path, tmp_path: Path, method: Method) -> None:
    """1, 2 and 4 micro-batches a step: the same losses, gradients and weights, in float64 to 1e-9.

    (In float32 Adam turns the rounding of a gradient near 0 into a difference of the order of the learning rate.)
    """
    results = [
        run(
            config_for(random_pair, tmp_path, method, micro_batch_prompts=micro, dtype="float64"),
            tmp_path / f"run{micro}",
        )
        for micro in (8, 4, 2)
    ]
    reference_weights, reference_rows = results[0]
    for weights, rows in results[1:]:
        for key in ("loss", "loss/policy", "loss/divergence", "loss/imitation", "grad_norm"):
            assert [row[key] for row in rows] == pytest.approx([row[key] for row in reference_rows], rel=1e-9, abs=1e-9)
        for name, value in weights.items():
            torch.testing.assert_close(value, reference_weights[name], rtol=0, atol=1e-9)


def test_activations_computed_again_change_nothing(random_pair: Path, tmp_path: Path, opd_run) -> None:
    config = config_for(random_pair, tmp_path, OPD())
    config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, gradient_checkpointing=True))
    weights, _ = run(config, tmp_path / "run")
    for name, value in weights.items():
        torch.testing.assert_close(value, opd_run[0][name], rtol=0, atol=1e-6)


def test_first_steps_are_equal_across_methods(random_pair: Path, tmp_path: Path, monkeypatch) -> None:
    """Same initial weights, prompts in the same order, same uniforms, same denominators: the first rollouts are the
    same for all methods.
    """
    seen: dict[str, list[Any]] = {}
    original = DistillationTrainer.assign_credit

    def spy(self, written, progress, rows):
        step = original(self, written, progress, rows)
        seen.setdefault(type(self.method).__name__, []).append((written.rollouts, step.batch))
        return step

    monkeypatch.setattr(DistillationTrainer, "assign_credit", spy)
    for method in (OPD(), EOPD(), REOPOLD(), TrOPD(prefix_schedule="none")):
        run(config_for(random_pair, tmp_path, method), tmp_path / type(method).__name__)
    reference = seen["OPD"]
    for steps in seen.values():
        assert steps[0][0] == reference[0][0]  # rollouts of step 0, token for token
        assert torch.equal(steps[0][1].uniforms, reference[0][1].uniforms)
        for (rollouts, batch), (expected, _) in zip(steps, reference, strict=True):
            assert [r.prompt_id for r in rollouts] == [r.prompt_id for r in expected]
            assert int(batch.on_policy_mask.sum()) == sum(len(r.completion_ids) for r in rollouts)


def test_policy_loss_is_the_written_sum(random_pair: Path, tmp_path: Path, monkeypatch) -> None:
    """Step 0 of OPD against −Σ r·log π_S / n with plain float64 forwards of both models."""
    captured = []
    original = DistillationTrainer.assign_credit
    monkeypatch.setattr(
        DistillationTrainer,
        "assign_credit",
        lambda self, written, *rest: captured.append(written.rollouts) or original(self, written, *rest),
    )
    _, rows = run(config_for(random_pair, tmp_path, OPD()), tmp_path / "run")
    models = {name: load_model(str(random_pair / name)).double() for name in ("student", "teacher")}
    total, count = 0.0, 0
    for rollout in captured[0]:
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
        labels, start = list(rollout.completion_ids), len(rollout.prompt_ids) - 1
        picked = {
            name: model(ids).logits[0, start:-1].log_softmax(-1)[range(len(labels)), labels]
            for name, model in models.items()
        }
        total += -((picked["teacher"] - picked["student"]) * picked["student"]).sum().item()
        count += len(labels)
    assert rows[0]["loss"] == pytest.approx(total / count, rel=1e-5)


def test_prefixes_are_spliced_and_masked(random_pair: Path, tmp_path: Path, monkeypatch) -> None:
    captured = []
    original = DistillationTrainer.assign_credit
    monkeypatch.setattr(
        DistillationTrainer,
        "assign_credit",
        lambda self, written, *rest: captured.append((self, written.rollouts)) or original(self, written, *rest),
    )
    _, rows = run(config_for(random_pair, tmp_path, TrOPD(), samples_per_prompt=2), tmp_path / "run")
    trainer, rollouts = captured[0]
    for rollout in rollouts:
        text = trainer.machinery.responses.completion_ids[rollout.prompt_id]
        stripped = text[:-1] if text[-1] in trainer.machinery.stop_ids else text
        assert rollout.prefix_len == max(len(stripped) - 1, 0)  # α = 1 at step 0, min_continuation = 1
        assert rollout.completion_ids[: rollout.prefix_len] == stripped[: rollout.prefix_len]
        assert len(rollout.completion_ids) > rollout.prefix_len
    pairs = list(zip(rollouts[::2], rollouts[1::2], strict=True))
    assert all(
        a.prompt_id == b.prompt_id and a.prefix_len == b.prefix_len for a, b in pairs
    )  # shared by a prompt's samples
    assert rows[0]["tokens/teacher"] == sum(r.prefix_len for r in rollouts)
    assert rows[0]["length/prefix"] > rows[-1]["length/prefix"] >= 0


@dataclasses.dataclass(frozen=True)
class ForwardKL(Method):
    """Direct term on every token, its support the whole vocabulary, with its own divergence."""

    def request(self, progress: float) -> SignalRequest:
        return SignalRequest(full_vocabulary=True, teacher_topk=True, student_at_topk=True, student_entropy=True)

    def credit(self, batch, teacher, student, progress) -> TokenCredit:
        assert teacher.topk_ids.shape[-1] == 8
        assert torch.equal(teacher.topk_ids, student.topk_ids)
        assert student.entropy is not None
        zeros = torch.zeros_like(teacher.logprobs)

        def reverse_kl(t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
            assert s.shape[-1] == 64
            torch.testing.assert_close(s.exp().sum(-1), torch.ones(len(s), dtype=s.dtype))
            return (s.exp() * (s - t)).sum(-1)

        return TokenCredit(zeros, batch.on_policy_mask.float(), zeros, divergence=reverse_kl)


def test_full_vocabulary_and_a_divergence_of_ones_own(random_pair: Path, tmp_path: Path) -> None:
    """The exact reverse KL agrees with its sampled estimate in expectation: positive, and falling under training."""
    config = config_for(random_pair, tmp_path, ForwardKL(), steps=12, learning_rate=3e-3)
    _, rows = run(config, tmp_path / "run")
    assert rows[0]["loss/divergence"] > 0
    assert rows[0]["loss/divergence"] == pytest.approx(rows[0]["kl/reverse_k1"], rel=0.3)
    assert rows[-1]["loss/divergence"] < 0.9 * rows[0]["loss/divergence"]


@dataclasses.dataclass(frozen=True)
class Imitation(Method):
    """The teacher writes everything (SeqKD)."""

    def needs_teacher_responses(self) -> bool:
        return True

    def writer(self, progress: float, uniform: float) -> str:
        return "teacher"

    def credit(self, batch, teacher, student, progress) -> TokenCredit:
        zeros = torch.zeros_like(teacher.logprobs)
        return TokenCredit(zeros, zeros, batch.prefix_mask.float())


def test_completions_that_the_teacher_wrote(random_pair: Path, tmp_path: Path) -> None:
    config = config_for(random_pair, tmp_path, Imitation(), samples_per_prompt=2, micro_batch_prompts=4)
    _, rows = run(config, tmp_path / "run")
    assert rows[0]["tokens/student"] == 0
    assert rows[0]["tokens/teacher"] > 0
    assert rows[0]["loss"] == pytest.approx(rows[0]["loss/imitation"])
    assert "kl/reverse_k1" not in rows[0]


def test_non_finite_loss_stops_the_run(random_pair: Path, tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Broken(OPD):
        def credit(self, batch, teacher, student, progress) -> TokenCredit:
            good = super().credit(batch, teacher, student, progress)
            return dataclasses.replace(good, advantages=good.advantages * float("nan"))

    with pytest.raises(FloatingPointError, match="advantages"):
        run(config_for(random_pair, tmp_path, Broken()), tmp_path / "run")


def test_heads_of_different_size_are_sliced(random_pair: Path, tmp_path: Path) -> None:
    """A teacher whose head is padded to more rows scores as if they were not there."""
    models = load_models(config_for(random_pair, tmp_path, OPD()))
    padded = load_model(str(random_pair / "teacher"))
    padded.resize_token_embeddings(80)
    prompts = [(2, 5, 7), (2, 9)]
    from harness.scoring import Completion, ScoreRequest

    completions = [Completion(p, (4, 6, 1)) for p in prompts]
    whole = HFScorer(models.teacher, 64).score(completions, ScoreRequest(top_k=8)).signal
    sliced = HFScorer(padded, models.vocab_size).score(completions, ScoreRequest(top_k=8)).signal
    torch.testing.assert_close(sliced.logprobs, whole.logprobs, rtol=0, atol=1e-6)
    assert torch.equal(sliced.topk_ids, whole.topk_ids)
    assert HFEngine(padded, 64).vocab_size == 64


@pytest.mark.parametrize("method", [OPD(), EOPD(entropy_threshold=2.5), TrOPD(), ForwardKL()])
def test_scoring_while_others_are_written_changes_nothing(random_pair: Path, tmp_path: Path, method: Method) -> None:
    """The teacher scores completions as they finish: the numbers of the serial order, in float64 to 1e-9."""
    serial = config_for(random_pair, tmp_path, method, dtype="float64", samples_per_prompt=3)
    eager = dataclasses.replace(serial, engine=dataclasses.replace(serial.engine, overlap=True))
    (weights, rows), (expected_weights, expected_rows) = (
        run(config, tmp_path / name) for name, config in (("eager", eager), ("serial", serial))
    )
    for row, expected in zip(rows, expected_rows, strict=True):
        for key in ("loss", "loss/policy", "loss/divergence", "loss/imitation", "grad_norm", "reward/q01"):
            assert row[key] == pytest.approx(expected[key], rel=1e-9, abs=1e-9)
    for name, value in weights.items():
        torch.testing.assert_close(value, expected_weights[name], rtol=0, atol=1e-9)


def test_completions_are_scored_before_the_last_is_written(random_pair: Path, tmp_path: Path, monkeypatch) -> None:
    events: list[str] = []
    score, generate = HFScorer.score, HFEngine.generate

    def watched_score(self, completions, request):
        events.append(f"scored {len(completions)}")
        return score(self, completions, request)

    def watched_generate(self, requests, sampling, progress=None, finished=None):
        def and_wait(row, rollout):
            finished(row, rollout)
            time.sleep(0.02)  # the scoring thread gets its turn

        done = generate(self, requests, sampling, progress, finished and and_wait)
        events.append(f"wrote {len(requests)}")
        return done

    monkeypatch.setattr(HFScorer, "score", watched_score)
    monkeypatch.setattr(HFEngine, "generate", watched_generate)
    config = config_for(random_pair, tmp_path, OPD(), steps=1)
    run(dataclasses.replace(config, engine=dataclasses.replace(config.engine, overlap=True)), tmp_path / "run")
    assert events.index("wrote 8") > events.index("scored 1", 2)  # after the start-up check: one sequence
    assert events.count("scored 1") == 9


def test_the_teacher_may_be_on_another_device(random_pair: Path, tmp_path: Path, monkeypatch) -> None:
    loaded = []

    def watched(name, revision, dtype, device):
        loaded.append((Path(name).name, device))
        return load_model(name, revision, dtype, "cpu")

    monkeypatch.setattr("harness.training.loaded.load_model", watched)
    config = config_for(random_pair, tmp_path, TrOPD())
    load_models(dataclasses.replace(config, engine=dataclasses.replace(config.engine, teacher_device="cuda:1")))
    assert loaded == [("student", "cpu"), ("teacher", "cuda:1")]

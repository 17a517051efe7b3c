"""One diagnosis: the pair on completions of its student, and on them the gradient of every method that is asked for."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.config.settings import RunConfig
from harness.console.progress import terminal_bar
from harness.diagnosis.gradients import REFERENCES, BatchGradient, Remembering, batch_gradients, summarise
from harness.diagnosis.meaning import pointers_of, warnings_of
from harness.diagnosis.pair import describe_pair
from harness.diagnosis.positions import Compared, distances, joined
from harness.diagnosis.projection import ALL, Projection
from harness.engines.caches import rows_per_batch
from harness.engines.opening import open_hf
from harness.errors import UserError
from harness.models.pair import ends_line
from harness.rollout import RolloutRequest
from harness.scoring import Completion, ScoreRequest, pad_completions
from harness.scoring.hf import HFScorer
from harness.seeds import seed_of
from harness.training.arguments import training_sampling
from harness.training.budget import Budget
from harness.training.loaded import Models, load_models
from harness.training.mechanisms import writers_of
from harness.training.prompts import Prompt, prompt_order, prompts_of
from harness.training.recorder import StepLog
from harness.training.train import WIDE
from harness.training.trainer import DistillationTrainer, Machinery
from harness.types import Rollout, SignalRequest

DIGITS = 5  # of every published number
PREVIEW = 400  # characters of the first prompt that are shown
REFERENCES_READ = 64  # of the prompts' own responses, on which the two models are compared


@dataclass(frozen=True)
class Amount:
    """How much is sampled."""

    completions: int = 256
    batches: int = 8  # independent ones, which the gradients' noise is measured over

    def __post_init__(self) -> None:
        if self.batches < 2 or self.completions < self.batches:
            raise UserError(
                f"completions={self.completions} batches={self.batches}: two batches or more are needed, each with a "
                "completion."
            )


def diagnose(runs: Sequence[RunConfig], amount: Amount) -> dict[str, Any]:
    """All numbers of one pair, ready for JSON. `runs` differ in their method alone."""
    config = runs[0]
    _check(runs)
    torch.set_num_threads(config.engine.threads)
    models = load_models(config)
    prompts = prompts_of(config.setting, models.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        trainers = _trainers(runs, models, prompts, Path(folder))
        machinery = next(iter(trainers.values())).machinery
        rollouts = _sample(config, machinery, amount)
        projection = Projection({n: p for n, p in models.student.named_parameters() if p.requires_grad})
        pairs: list[Compared] = []
        gradients: dict[str, list[BatchGradient]] = {name: [] for name in trainers}
        with terminal_bar("diagnosis", amount.batches, "batches") as bar:
            for number, batch in enumerate(_batches(rollouts, amount.batches)):
                for trainer in trainers.values():
                    trainer.state.global_step = number  # whose uniforms the methods draw by
                pairs.append(_compare(batch, machinery, config.setting.top_k))
                for name, gradient in batch_gradients(trainers, batch, projection).items():
                    gradients[name].append(gradient)
                bar.advance()
    found = joined(pairs)
    positions = torch.cat([torch.arange(1, len(r.completion_ids) + 1) for r in rollouts])
    rows = summarise(gradients, found.teacher - found.student, projection.groups())
    diagnosis = {
        "setting": config.setting.name,
        "student": config.setting.student,
        "teacher": config.setting.teacher,
        "top_k": config.setting.top_k,
        "batches": amount.batches,
        "pair": describe_pair(found, positions, rollouts),
        "references": _references(machinery, prompts),
        "groups": [ALL, *projection.groups()],
        "gradients": {name: asdict(row) for name, row in rows.items()},
        "ends": ends_line(config.setting),
        "preview": str(models.tokenizer.decode(list(prompts[0].ids)))[-PREVIEW:],
    }
    return rounded(diagnosis | {"warnings": warnings_of(diagnosis, runs), "pointers": pointers_of(diagnosis)})


def rounded(value: Any) -> Any:
    """Every number in it to DIGITS significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def _check(runs: Sequence[RunConfig]) -> None:
    for run in runs:
        if run.method is None:
            raise UserError(f"method={run.method_name} is not trained, so that it has no gradient; leave it out.")
        if {run.engine.who("student"), run.engine.who("teacher")} != {"hf"}:
            raise UserError("whole distributions are compared, which engine=hf alone reads; leave engine= out.")
        if writers_of(run) != {"student"}:
            raise UserError(
                f"method={run.method_name} trains on text that the student does not write; what is diagnosed are the "
                "student's own completions: leave it out."
            )


def _trainers(
    runs: Sequence[RunConfig], models: Models, prompts: Sequence[Prompt], folder: Path
) -> dict[str, DistillationTrainer]:
    """One for each method and for the two divergences, all of one student, with scorers that read once for all."""
    assert models.teacher is not None
    setting = runs[0].setting
    ends = training_sampling(setting, models.stop_ids).end_ids
    requests = [run.method.request(0.0) for run in runs if run.method is not None]
    teacher, student = _widest(requests, setting.top_k, models.stop_ids)
    longest = setting.max_prompt_tokens + setting.max_new_tokens
    rows = rows_per_batch(runs[0].engine, models.student, longest)
    with open_hf(models.student, models.vocab_size, rows) as opened:
        assert opened.weights is not None
        machinery = Machinery(
            student=models.student,
            engine=opened.engine,
            student_scorer=Remembering(HFScorer(models.student, models.vocab_size, ends), student),
            teacher_scorer=Remembering(HFScorer(models.teacher, models.vocab_size, ends), teacher),
            prompts=prompts,
            responses=None,
            stop_ids=models.stop_ids,
            vocab_size=models.vocab_size,
            weights=opened.weights,
            engine_is_trainer=setting.dtype in WIDE,
        )
    methods = {**{run.method_name: run.method for run in runs}, **REFERENCES}
    return {
        name: DistillationTrainer(
            machinery, replace(runs[0], method=method), folder, StepLog(), callbacks=[], budget=Budget(setting)
        )
        for name, method in methods.items()
    }


def _widest(
    requests: Sequence[SignalRequest], top_k: int, stop_ids: tuple[int, ...]
) -> tuple[ScoreRequest, ScoreRequest]:
    """What any of the methods reads of the teacher, and of the student."""
    wants_top = any(r.teacher_topk or r.student_at_topk for r in requests)
    teacher = ScoreRequest(top_k if wants_top else 0, any(r.teacher_entropy for r in requests), stop_ids=stop_ids)
    return teacher, ScoreRequest(0, any(r.student_entropy for r in requests))


def _sample(config: RunConfig, machinery: Machinery, amount: Amount) -> list[Rollout]:
    """One completion for each of as many prompts, in the order of training."""
    order = prompt_order(len(machinery.prompts), config.seed, amount.completions)
    requests = [
        RolloutRequest(machinery.prompts[index].prompt_id, machinery.prompts[index].ids, seed, sample_index=number)
        for number, index in enumerate(order)
        for seed in [seed_of("diagnosis", config.seed, number)]
    ]
    with terminal_bar("completions", len(requests), "completions") as bar:
        return machinery.engine.generate(
            requests,
            training_sampling(config.setting, machinery.stop_ids),
            finished=lambda _row, _rollout: bar.advance(),
        )


def _batches(rollouts: Sequence[Rollout], count: int) -> Iterator[Sequence[Rollout]]:
    ends = [round(i * len(rollouts) / count) for i in range(count + 1)]
    for begin, end in itertools.pairwise(ends):
        yield rollouts[begin:end]


def _compare(rollouts: Sequence[Rollout], machinery: Machinery, top_k: int) -> Compared:
    completions = [Completion(r.prompt_ids, r.completion_ids) for r in rollouts]
    mask, labels = pad_completions(completions)
    sides = [
        scorer.score(completions, ScoreRequest()).whole(mask)  # type: ignore[attr-defined]
        for scorer in (machinery.student_scorer, machinery.teacher_scorer)
    ]
    ids = labels[mask].to(sides[0].hidden.device)
    return distances(sides[0], sides[1], ids, top_k, stop_ids=machinery.stop_ids)


def _references(machinery: Machinery, prompts: Sequence[Prompt]) -> dict[str, float] | None:
    """Mean log-prob of a token of the prompts' own responses under both models; None where there are none."""
    written = [(p.ids, p.reference_ids) for p in prompts[:REFERENCES_READ] if p.reference_ids]
    if not written:
        return None
    completions = [Completion(ids, reference) for ids, reference in written if reference]
    mask, _ = pad_completions(completions)
    sides = {"student": machinery.student_scorer, "teacher": machinery.teacher_scorer}
    means = {
        name: float(scorer.score(completions, ScoreRequest()).signal.logprobs[mask].mean())
        for name, scorer in sides.items()
    }
    return {"responses": float(len(completions)), **means}

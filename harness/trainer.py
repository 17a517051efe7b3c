"""DistillationTrainer: one training step, readable from top to bottom.

`get_batch_samples` makes the step (prompts -> completions -> scores -> credit), once for all its micro-batches;
`compute_loss` turns one micro-batch
into a loss. Everything else (optimiser, schedule, clipping, accumulation, checkpoints, resume, devices) is
transformers.Trainer's. No method is named here.

Shape legend: B sequences of the step, T completion positions, N valid tokens of a micro-batch, R of them with a
divergence weight, K support ids.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from harness.config import Execution, Setting
from harness.credit import Coefficients, LossTerms, compute_coefficients, compute_loss_terms, importance_ratios
from harness.divergences import topk_forward_kl
from harness.guidance import TeacherResponses, choose_prefixes
from harness.metrics import mismatch_metrics, ratio_metrics, step_metrics
from harness.models import bind_token_forward
from harness.prompts import Prompt, prompt_order
from harness.rollout import RolloutEngine, RolloutRequest, Sampling
from harness.rollout.weights import WeightSync
from harness.samples import CreditSample, credit_sample
from harness.scoring import Completion, Scored, Scorer, ScoreRequest
from harness.seeds import generator_of, seed_of
from harness.trackers import place_logs
from harness.types import Divergence, Method, Rollout, SignalRequest, TokenBatch, TokenSignal

LOSS_TERMS = ("policy", "divergence", "imitation")


@dataclass(frozen=True)
class Machinery:
    """The parts that a step is made with; engines and scorers are interchangeable."""

    student: PreTrainedModel
    engine: RolloutEngine  # samples from the student's current weights
    student_scorer: Scorer
    teacher_scorer: Scorer
    prompts: Sequence[Prompt]
    responses: TeacherResponses | None  # None unless the method needs teacher text
    stop_ids: tuple[int, ...]
    vocab_size: int  # shared by both models
    weights: WeightSync  # brings the student's weights into the engine
    engine_is_trainer: bool = True  # the engine samples from the trainer's own tensors: its log-probs are the trainer's


@dataclass(frozen=True)
class Step:
    """One optimiser step before it is cut into micro-batches."""

    rollouts: list[Rollout]
    batch: TokenBatch
    coefficients: Coefficients
    divergence: Divergence
    support_ids: Tensor  # [all R of the step, K], row-major over the rows with a divergence weight
    support_logprobs: Tensor  # the teacher's


class PromptOrder(Dataset):
    """Prompt indices of the whole run, in an order that only the seed decides."""

    def __init__(self, count: int, seed: int, needed: int) -> None:
        self.order = prompt_order(count, seed, needed)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> int:
        return self.order[index]


class DistillationTrainer(Trainer):
    """Trains `machinery.student` by one method under one Setting."""

    loss_is_scaled_for_ga = True  # compute_loss returns shares of the step's loss: micro-batches add up

    def __init__(
        self,
        machinery: Machinery,
        method: Method,
        setting: Setting,
        execution: Execution,
        seed: int,
        folder: Path,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.machinery, self.method, self.setting, self.run_seed = machinery, method, setting, seed
        self.metrics: dict[str, float] = {}  # of the current step; the recorder reads them when the step is logged
        self.sample: CreditSample | None = None  # of the current step; likewise
        bind_token_forward(machinery.student, machinery.vocab_size)
        order = PromptOrder(len(machinery.prompts), seed, setting.steps * setting.prompts_per_step)
        arguments = training_arguments(setting, execution, seed, folder)
        super().__init__(machinery.student, arguments, data_collator=_as_is, train_dataset=order, callbacks=callbacks)
        place_logs(self.callback_handler.callbacks, folder.parent)
        self.remove_callback(PrinterCallback)  # the recorder writes metrics.jsonl instead

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """One optimiser step: prompts in, micro-batches with finished credit out."""
        micro_prompts, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not micro_prompts:
            return [], None
        started, self._weights_s = time.perf_counter(), 0.0
        prompts = [self.machinery.prompts[i] for indices in micro_prompts for i in indices]
        progress = self.state.global_step / self.setting.steps
        with torch.no_grad():
            rollouts = self.write_completions(prompts, progress)
            rolled_out = time.perf_counter()
            step = self.assign_credit(rollouts, progress)
        scored = time.perf_counter()
        self.metrics |= {"time/rollout_s": rolled_out - started, "time/scoring_s": scored - rolled_out}
        self.metrics["time/weights_s"] = self._weights_s  # a part of the rollout's
        self._update_started = scored
        per_prompt = len(rollouts) // len(prompts)  # 1 where somebody else than the student wrote
        per_micro_batch = [len(indices) * per_prompt for indices in micro_prompts]
        return micro_batches(step, per_micro_batch), None

    def write_completions(self, prompts: Sequence[Prompt], progress: float) -> list[Rollout]:
        """The step's completions, `samples_per_prompt` for each prompt, prompt by prompt."""
        step, seed, responses = self.state.global_step, self.run_seed, self.machinery.responses
        writer = self.method.completions(progress, generator_of("writer", seed, step).random())
        if writer != "student":
            return [_as_rollout(prompt, writer, responses, self.machinery.stop_ids) for prompt in prompts]
        prefixes: list[tuple[int, ...]] = [()] * len(prompts)
        if responses is not None:
            uniforms = torch.tensor([generator_of("prefix", seed, step, slot).random() for slot in range(len(prompts))])
            texts = [responses.text_of(prompt) for prompt in prompts]
            prefixes = choose_prefixes(self.method, texts, progress, uniforms, self.setting.min_continuation)
        requests = [
            RolloutRequest(p.prompt_id, p.ids, seed_of("sampling", seed, step, slot, sample), sample, prefixes[slot])
            for slot, p in enumerate(prompts)
            for sample in range(self.setting.samples_per_prompt)
        ]
        pushing = time.perf_counter()
        self.machinery.weights.push(step)
        self._weights_s = time.perf_counter() - pushing
        rollouts = self.machinery.engine.generate(requests, training_sampling(self.setting, self.machinery.stop_ids))
        stale = [r.policy_version for r in rollouts if r.policy_version != step]
        if stale:
            raise RuntimeError(f"the engine sampled from policy version {stale[0]}, the trainer is at {step}")
        return rollouts

    def assign_credit(self, rollouts: list[Rollout], progress: float) -> Step:
        """Scores the completions, lets the method assign credit, and fetches the support of the direct term where it has weight."""
        dtype = torch.float64 if self.setting.dtype == "float64" else torch.float32
        batch = token_batch(rollouts, self._credit_uniforms(len(rollouts)), dtype)
        request = self.method.request(progress)
        completions = [Completion(r.prompt_ids, r.completion_ids) for r in rollouts]
        top_k = self.setting.top_k if request.teacher_topk or request.student_at_topk else 0
        scored = self.machinery.teacher_scorer.score(completions, ScoreRequest(top_k, request.teacher_entropy))
        student = self._student_signal(completions, batch, request, scored.signal)
        credit = self.method.credit(batch, scored.signal, student, progress)
        coefficients = compute_coefficients(credit, batch)
        ids, logprobs = self._support(scored, coefficients.divergence > 0, request)
        self.metrics = step_metrics(rollouts, batch, scored.signal, student, credit)
        if not self.machinery.engine_is_trainer:
            self.metrics |= mismatch_metrics(batch, student)
        if (cap := self.setting.importance_cap) is not None:
            ratios = importance_ratios(batch, student.logprobs, cap)
            coefficients = replace(coefficients, policy=coefficients.policy * ratios)
            self.metrics |= ratio_metrics(batch, ratios, cap)
        self.sample = credit_sample(rollouts, scored.signal, student, credit)
        divergence = credit.divergence or topk_forward_kl
        return Step(rollouts, batch, coefficients, divergence, ids, logprobs)

    def _credit_uniforms(self, rows: int) -> list[np.random.Generator]:
        samples = self.setting.samples_per_prompt
        step = self.state.global_step
        return [generator_of("credit", self.run_seed, step, row // samples, row % samples) for row in range(rows)]

    def _student_signal(
        self, completions: list[Completion], batch: TokenBatch, request: SignalRequest, teacher: TokenSignal
    ) -> TokenSignal:
        """The student's view, by the trainer. Where the engine is the trainer itself, its log-probs of its own samples are taken over; the
        rest is scored if asked for."""
        own = self.machinery.engine_is_trainer
        needs_scoring = request.student_entropy or request.student_at_topk or not batch.on_policy_mask.any()
        if own and not needs_scoring:
            return TokenSignal(batch.rollout_logprobs)
        at_ids = teacher.topk_ids if request.student_at_topk else None
        signal = self.machinery.student_scorer.score(
            completions, ScoreRequest(0, request.student_entropy, at_ids)
        ).signal
        if not own:
            return signal
        return replace(signal, logprobs=torch.where(batch.on_policy_mask, batch.rollout_logprobs, signal.logprobs))

    def _support(self, scored: Scored, mask: Tensor, request: SignalRequest) -> tuple[Tensor, Tensor]:
        signal = scored.signal
        if signal.topk_ids is not None and signal.topk_logprobs is not None and not request.full_vocabulary:
            return signal.topk_ids[mask], signal.topk_logprobs[mask]
        return scored.support(mask, self.machinery.vocab_size if request.full_vocabulary else self.setting.top_k)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """One micro-batch's share of the step's loss. The forward returns log-probs, never logits (harness.models)."""
        logprobs, support_logprobs = model(
            input_ids=inputs["input_ids"],
            rows=inputs["rows"],
            token_ids=inputs["token_ids"],
            support_rows=inputs["support_rows"],
            support_ids=inputs["support_ids"],
        )
        divergences = inputs["divergence"](inputs["support_teacher_logprobs"], support_logprobs)
        terms = compute_loss_terms(
            logprobs, inputs["policy"], inputs["imitation"], divergences, inputs["divergence_weights"]
        )
        loss = terms.total()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.state.global_step}")
        self._record_loss(terms)
        return loss

    def finished_step_metrics(self) -> dict[str, float]:
        """The metrics of the step whose update is done: its loss is its micro-batches' shares added up."""
        loss = sum(self.metrics[f"loss/{name}"] for name in LOSS_TERMS)
        return {"loss": loss, **self.metrics, "time/update_s": time.perf_counter() - self._update_started}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's own log, and with trackers (`report_to`) the metrics of the step beside it."""
        if self.args.report_to and "grad_norm" in logs:
            logs = {**self.finished_step_metrics(), **logs}
        super().log(logs, start_time)

    def _record_loss(self, terms: LossTerms) -> None:
        for name in LOSS_TERMS:
            key = f"loss/{name}"
            self.metrics[key] = self.metrics.get(key, 0.0) + getattr(terms, name).item()


def _as_is(indices: list[Any]) -> Any:
    return indices  # prompts are looked up and padded when the step is made


def training_sampling(setting: Setting, stop_ids: tuple[int, ...]) -> Sampling:
    """How training completions are drawn; the teacher's cached responses are drawn the same way."""
    return Sampling(setting.max_new_tokens, setting.temperature, setting.top_p, 0, stop_ids)


def training_arguments(setting: Setting, execution: Execution, seed: int, folder: Path) -> TrainingArguments:
    """The Setting in the Trainer's words."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=setting.steps,
        per_device_train_batch_size=execution.micro_batch_prompts,
        gradient_accumulation_steps=setting.prompts_per_step // execution.micro_batch_prompts,
        learning_rate=setting.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup", "cosine": "cosine"}[setting.lr_schedule],
        warmup_steps=setting.warmup_steps,
        weight_decay=setting.weight_decay,
        adam_beta1=setting.adam_beta1,
        adam_beta2=setting.adam_beta2,
        max_grad_norm=setting.max_grad_norm,
        optim="adamw_torch",
        bf16=False,
        use_cpu=execution.device == "cpu",
        seed=seed,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=execution.save_every,
        save_total_limit=2,
        report_to=list(execution.report_to),
        run_name="/".join(folder.parts[-4:-1]),  # <setting>-<hash8>/<method>/seed<k>, in a tracker's list of runs
        disable_tqdm=True,
    )


def token_batch(
    rollouts: Sequence[Rollout], uniforms: Sequence[np.random.Generator], dtype: torch.dtype = torch.float32
) -> TokenBatch:
    """Pads the completions to one [B, T] step."""
    width = max(len(r.completion_ids) for r in rollouts)

    def padded(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype)

    position = torch.arange(width)
    lengths = torch.tensor([len(r.completion_ids) for r in rollouts])[:, None]
    prefixes = torch.tensor([r.prefix_len for r in rollouts])[:, None]
    valid = position < lengths
    return TokenBatch(
        labels=padded([r.completion_ids for r in rollouts], torch.long),
        on_policy_mask=valid & (position >= prefixes),
        prefix_mask=valid & (position < prefixes),
        rollout_logprobs=padded([r.logprobs for r in rollouts], dtype),
        uniforms=padded(
            [g.random(len(r.completion_ids)).tolist() for g, r in zip(uniforms, rollouts, strict=True)], torch.float32
        ),
    )


def micro_batches(step: Step, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Cuts the step into micro-batches of the given numbers of sequences, and each to its valid tokens only."""
    has_support = step.coefficients.divergence > 0
    support_counts = has_support.sum(1).tolist()
    batches, first, first_support = [], 0, 0
    for size in sizes:
        rows = slice(first, first + size)
        supports = sum(support_counts[rows])
        batches.append(_micro_batch(step, rows, slice(first_support, first_support + supports)))
        first, first_support = first + size, first_support + supports
    return batches


def _micro_batch(step: Step, rows: slice, support: slice) -> dict[str, Any]:
    rollouts = step.rollouts[rows]
    width = max(len(r.prompt_ids) + len(r.completion_ids) for r in rollouts)
    sequences = [[*r.prompt_ids, *r.completion_ids] for r in rollouts]
    valid = (step.batch.on_policy_mask | step.batch.prefix_mask)[rows]
    sequence, position = valid.nonzero(as_tuple=True)  # [N] each, row-major
    prompt_lengths = torch.tensor([len(r.prompt_ids) for r in rollouts])
    divergence_weights = step.coefficients.divergence[rows][valid]
    return {
        "input_ids": torch.tensor([s + [0] * (width - len(s)) for s in sequences]),
        "rows": sequence * width + prompt_lengths[sequence] + position - 1,  # the state that predicts the token
        "token_ids": step.batch.labels[rows][valid],
        "policy": step.coefficients.policy[rows][valid],
        "imitation": step.coefficients.imitation[rows][valid],
        "support_rows": (divergence_weights > 0).nonzero()[:, 0],
        "divergence_weights": divergence_weights[divergence_weights > 0],
        "support_ids": step.support_ids[support],
        "support_teacher_logprobs": step.support_logprobs[support],
        "divergence": step.divergence,
    }


def _as_rollout(prompt: Prompt, writer: str, responses: TeacherResponses | None, stop_ids: tuple[int, ...]) -> Rollout:
    """A completion that somebody else wrote, whole, its end token included."""
    ids = prompt.reference_ids if writer == "reference" else responses and responses.completion_ids[prompt.prompt_id]
    if not ids:
        raise RuntimeError(f"prompt {prompt.prompt_id!r} has no {writer} response")
    stop = "stop" if ids[-1] in stop_ids else "length"
    return Rollout(prompt.ids, tuple(ids), len(ids), (0.0,) * len(ids), 0, stop, prompt.prompt_id, 0)  # type: ignore[arg-type]

"""DistillationTrainer: one training step, readable from top to bottom.

`get_batch_samples` makes the step (prompts -> completions -> scores -> credit), once for all its micro-batches;
`compute_loss` turns one micro-batch into a loss; `create_scheduler` is the Setting's schedule. Everything else
(optimiser, clipping, accumulation, checkpoints, resume, devices) is transformers.Trainer's. No method is named here.

Shape legend: B sequences of the step, T completion positions, N tokens of a micro-batch with any credit, R of them with
a divergence weight, K support ids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback

from harness.config.settings import RunConfig
from harness.divergences import topk_forward_kl
from harness.models.head import bind_token_forward
from harness.numerics.credit import compute_coefficients, importance_ratios
from harness.results.provenance import memory_metrics
from harness.results.samples import credit_sample
from harness.rollout import RolloutEngine, RolloutRequest
from harness.rollout.weights import WeightSync
from harness.scoring import Completion, Scored, Scorer, ScoreRequest, WholeScored
from harness.scoring.pieces import EagerScoring
from harness.seeds import as_float32, generator_of, seed_of
from harness.training import ranks
from harness.training.arguments import Positions, compute_in, training_arguments, training_sampling
from harness.training.batches import endings_of, token_batch, unread
from harness.training.budget import Budget
from harness.training.guidance import TeacherResponses, as_rollout, choose_prefixes, prefix_metrics
from harness.training.masters import MasterAdamW, needs_masters
from harness.training.metrics import mismatch_metrics, pass_metrics, ratio_metrics, step_metrics, stop_metrics
from harness.training.prompts import Prompt, prompt_order
from harness.training.recorder import StepLog
from harness.training.step import Step, Support, cut, micro_batches
from harness.training.trackers import place_logs
from harness.types import Rollout, SignalRequest, TokenBatch, TokenSignal, Writer

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
    weights: WeightSync  # brings the student's weights into the engine; all ranks push together
    # The engine samples from the trainer's own tensors by the same arithmetic, and its log-probs are taken over. Not in
    # bfloat16, nor by a hybrid's own cache: a pass over a cache and one over whole sequences differ there.
    engine_is_trainer: bool = True


@dataclass(frozen=True)
class Written:
    """The completions of a step's prompts, and what else came of writing them."""

    rollouts: list[Rollout]
    guidance: dict[str, float] = field(default_factory=dict)  # metrics of the teacher's prefixes
    weights_s: float = 0.0  # seconds that the engine took for the student's weights
    scoring: EagerScoring | None = None  # by the teacher, begun while they were written; None: not begun
    writer: Writer = "student"


class DistillationTrainer(Trainer):
    """Trains `machinery.student` by one method under one Setting."""

    loss_is_scaled_for_ga = True  # compute_loss returns shares of the step's loss: micro-batches add up

    def __init__(
        self,
        machinery: Machinery,
        config: RunConfig,
        folder: Path,
        log: StepLog,
        callbacks: list[TrainerCallback],
        budget: Budget,
    ) -> None:
        assert config.method is not None  # untrained rows come here never
        self.machinery, self.method, self.setting, self.run_seed = machinery, config.method, config.setting, config.seed
        self.step_log, self.budget = log, budget
        self.overlap = config.engine.overlap
        self.sampling = replace(training_sampling(self.setting, machinery.stop_ids), record_stops=True)
        bind_token_forward(machinery.student, machinery.vocab_size, self.sampling.end_ids)
        positions = Positions(budget.most_steps * self.setting.prompts_per_step)
        self.order = prompt_order(len(machinery.prompts), self.run_seed, len(positions))
        arguments = training_arguments(self.setting, config.engine, self.run_seed, folder)
        arguments.max_steps = budget.most_steps
        optimizer = None  # the Trainer's own AdamW; sharded weights are float32 already (conf/accelerate/fsdp2.yaml)
        if needs_masters(machinery.student.parameters()):
            optimizer = (MasterAdamW, Trainer.get_optimizer_cls_and_kwargs(arguments)[1])
        super().__init__(
            machinery.student,
            arguments,
            data_collator=list,  # type: ignore[arg-type]  # prompts are looked up and padded when the step is made
            train_dataset=positions,
            callbacks=callbacks,
            optimizer_cls_and_kwargs=optimizer,
        )
        if self.args.world_size != ranks.count():
            raise RuntimeError(f"the Trainer sees {self.args.world_size} processes, there are {ranks.count()}")
        if self.is_fsdp_enabled:
            compute_in(getattr(torch, self.setting.dtype), self.accelerator.state.fsdp_plugin)
        place_logs(self.callback_handler.callbacks, folder.parent)
        self.remove_callback(PrinterCallback)  # the recorder writes metrics.jsonl instead

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """One optimiser step: prompts in, micro-batches with finished credit out."""
        micro_positions, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not micro_positions:
            return [], None
        started = time.perf_counter()
        slots = [position % self.setting.prompts_per_step for batch in micro_positions for position in batch]
        progress = self.budget.progress(self.state.global_step)
        with torch.no_grad(), ranks.whole_weights(self.model_wrapped):
            written = self.write_completions(slots, progress)
            rolled_out = time.perf_counter()
            per_prompt = len(written.rollouts) // len(slots)  # 1 where somebody else than the student wrote
            rows = [slot * per_prompt + sample for slot in slots for sample in range(per_prompt)]
            step = self.assign_credit(written, progress, rows)
        scored = self.step_log.update_started = time.perf_counter()
        self.step_log.metrics |= {
            "time/rollout_s": rolled_out - started,
            "time/scoring_s": scored - rolled_out,
            "time/weights_s": written.weights_s,  # a part of the rollout's
        }
        return micro_batches(step, [len(batch) * per_prompt for batch in micro_positions]), None

    def write_completions(self, slots: Sequence[int], progress: float) -> Written:
        """The completions of some of the step's prompts, `samples_per_prompt` for each, prompt by prompt.

        `slots` are the prompts' places in the step, in [0, prompts_per_step): this rank's share.
        """
        step, seed, responses = self.state.global_step, self.run_seed, self.machinery.responses
        first = step * self.setting.prompts_per_step
        everyone = [self.machinery.prompts[i] for i in self.order[first : first + self.setting.prompts_per_step]]
        writer = self.method.writer(progress, generator_of("writer", seed, step).random())
        if writer != "student":
            written = [as_rollout(everyone[slot], writer, responses, self.sampling) for slot in slots]
            return Written(written, writer=writer)
        prefixes: list[tuple[int, ...]] = [()] * len(everyone)
        guidance: dict[str, float] = {}
        if responses is not None:
            draws = [generator_of("prefix", seed, step, slot).random() for slot in range(len(everyone))]
            texts = [responses.text_of(prompt) for prompt in everyone]
            uniforms = torch.from_numpy(as_float32(draws))
            prefixes = choose_prefixes(
                self.method, texts, progress, uniforms, min_continuation=self.setting.min_continuation
            )
            guidance = prefix_metrics(self.method, texts, progress, uniforms, prefixes=prefixes)
        requests = [
            RolloutRequest(
                prompt_id=everyone[slot].prompt_id,
                prompt_ids=everyone[slot].ids,
                seed=seed_of("sampling", seed, step, slot, sample),
                sample_index=sample,
                prefix_ids=prefixes[slot],
            )
            for slot in slots
            for sample in range(self.setting.samples_per_prompt)
        ]
        pushing = time.perf_counter()
        self.machinery.weights.push(step)
        weights_s = time.perf_counter() - pushing
        scoring = None
        if self.overlap and self.method.request(progress).teacher:
            scoring = EagerScoring(self.machinery.teacher_scorer, self._teacher_request(progress), len(requests))
        finished = scoring.finished if scoring is not None else None
        rollouts = self.machinery.engine.generate(requests, self.sampling, finished=finished)
        stale = [r.policy_version for r in rollouts if r.policy_version != step]
        if stale:
            raise RuntimeError(f"the engine sampled from policy version {stale[0]}, the trainer is at {step}")
        return Written(rollouts, guidance, weights_s, scoring)

    def assign_credit(self, written: Written, progress: float, rows: Sequence[int]) -> Step:
        """Scores the completions, lets the method assign credit, fetches the direct term's support where it has weight.

        `rows` are the completions' places in the step: credit is computed on the whole step, the answer holds these.
        """
        dtype = torch.float64 if self.setting.dtype == "float64" else torch.float32
        request = self.method.request(progress)
        rollouts = written.rollouts
        completions = [Completion(r.prompt_ids, r.completion_ids) for r in rollouts]
        scored: Scored | None = None
        if written.scoring is not None:
            scored = written.scoring.result()
        elif request.teacher:
            scored = self.machinery.teacher_scorer.score(completions, self._teacher_request(progress))
        batch = ranks.gather_tensors(token_batch(rollouts, self._credit_uniforms(rows), dtype), rows)
        endings = ranks.gather_tensors(endings_of(rollouts, dtype), rows)
        teacher = ranks.gather_tensors(scored.signal, rows) if scored is not None else None
        student = self._student_signal(completions, batch, request, scored.signal if scored else None, rows=rows)
        read = (teacher or unread(batch), student or unread(batch))
        credit = self.method.credit(batch, *read, progress)
        coefficients = compute_coefficients(credit, batch)
        log = self.step_log
        log.metrics = step_metrics(batch, endings, teacher, student, credit=credit) | written.guidance
        log.metrics |= mismatch_metrics(batch, student) | stop_metrics(batch, endings, teacher)
        log.metrics |= pass_metrics(batch, written.writer, teacher, student)
        self.budget.add(log.metrics)
        if (cap := self.setting.importance_cap) is not None and student is not None:
            ratios = importance_ratios(batch, student.logprobs, cap)
            coefficients = replace(coefficients, policy=coefficients.policy * ratios)
            log.metrics |= ratio_metrics(batch, ratios, cap)
        if 0 in rows:  # on rank 0, which writes it down
            log.sample = credit_sample(rollouts[rows.index(0)], *read, credit)
        width = max(len(r.completion_ids) for r in rollouts)
        own = cut(coefficients, rows, width)
        support = self._support(scored, own.divergence > 0, request)
        divergence = credit.divergence or topk_forward_kl
        return Step(rollouts, cut(batch, rows, width), own, divergence, support=support)

    def _teacher_request(self, progress: float) -> ScoreRequest:
        request = self.method.request(progress)
        top_k = self.setting.top_k if request.teacher_topk or request.student_at_topk else 0
        return ScoreRequest(top_k, request.teacher_entropy, stop_ids=self.machinery.stop_ids)

    def _credit_uniforms(self, rows: Sequence[int]) -> list[np.random.Generator]:
        samples = self.setting.samples_per_prompt
        at = ("credit", self.run_seed, self.state.global_step)
        return [generator_of(*at, row // samples, row % samples) for row in rows]

    def _student_signal(
        self,
        completions: list[Completion],
        batch: TokenBatch,
        request: SignalRequest,
        own_teacher: TokenSignal | None,
        rows: Sequence[int],
    ) -> TokenSignal | None:
        """The student's view, by the trainer. Where the engine is the trainer itself, its log-probs of its own samples
        are taken over; the rest is scored if asked for. None: nobody reads it, and it was not made."""
        own, sampled = self.machinery.engine_is_trainer, bool(batch.on_policy_mask.any())
        needs_scoring = request.student_entropy or request.student_at_topk or (request.student and not sampled)
        if own and not needs_scoring:
            return TokenSignal(batch.rollout_logprobs) if sampled else None
        if not needs_scoring and not request.student and self.setting.importance_cap is None:
            return None
        at_ids = own_teacher.topk_ids if own_teacher is not None and request.student_at_topk else None
        asked = ScoreRequest(0, request.student_entropy, at_ids)
        scored = self.machinery.student_scorer.score(completions, asked).signal
        signal = ranks.gather_tensors(scored, rows)
        if not own:
            return signal
        return replace(signal, logprobs=torch.where(batch.on_policy_mask, batch.rollout_logprobs, signal.logprobs))

    def _support(self, scored: Scored | None, mask: Tensor, request: SignalRequest) -> Support:
        if scored is None:
            if mask.any():
                raise RuntimeError(
                    f"{type(self.method).__name__} has a direct term, and its request leaves the teacher out"
                )
            return Support(torch.zeros(0, 0).long(), torch.zeros(0, 0))
        signal = scored.signal
        if request.full_vocabulary and isinstance(scored, WholeScored):
            count = int(mask.sum())
            nothing = torch.zeros(count, 0)
            return Support(nothing.long(), nothing, scored.whole(mask))
        if signal.topk_ids is not None and signal.topk_logprobs is not None and not request.full_vocabulary:
            return Support(signal.topk_ids[mask], signal.topk_logprobs[mask])
        top_k = self.machinery.vocab_size if request.full_vocabulary else self.setting.top_k
        return Support(*scored.support(mask, top_k))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """One micro-batch's share of the step's loss. The forward returns it, never logits (harness.models.head)."""
        loss, terms = model(**inputs)
        shares = terms.tolist()  # the one thing here that waits for the GPU
        if not math.isfinite(sum(shares)):
            raise FloatingPointError(f"the loss is {sum(shares)} at step {self.state.global_step}")
        for name, value in zip(LOSS_TERMS, shares, strict=True):
            self.step_log.metrics[f"loss/{name}"] = self.step_log.metrics.get(f"loss/{name}", 0.0) + value
        return loss * ranks.count()  # gradients are averaged over the ranks, and every share is of the whole step

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """The Setting's learning rate, step by step (Budget.rate_share)."""
        if self.lr_scheduler is None:
            made = optimizer or self.optimizer
            assert made is not None  # create_optimizer comes first
            self.lr_scheduler = LambdaLR(made, self.budget.rate_share)
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's own log; the step's metrics are complete now, and trackers (`report_to`) get them too."""
        if "grad_norm" in logs:
            self._finish_step()
            self.control.should_training_stop |= self.budget.is_spent
            if self.args.report_to:
                logs = {**self.step_log.metrics, **logs}
        step, last = self.state.global_step, self.control.should_training_stop
        scored = "grad_norm" in logs and self.step_log.is_scored(step, last or step == self.state.max_steps)
        with torch.no_grad(), ranks.whole_weights(self.model_wrapped, scored):  # rank 0 alone samples from them
            if scored:
                self.machinery.weights.push(step)  # all ranks: servers may be everybody's
            super().log(logs, start_time)

    def _finish_step(self) -> None:
        """A step's loss is its micro-batches' shares added up over all ranks; the slowest rank's seconds count."""
        log = self.step_log
        own = {f"loss/{name}": log.metrics[f"loss/{name}"] for name in LOSS_TERMS}
        own |= {key: value for key, value in log.metrics.items() if key.startswith("time/")}
        own |= {"time/update_s": time.perf_counter() - log.update_started, **memory_metrics()}
        largest = [key for key in own if not key.startswith("loss/")]
        log.metrics |= ranks.combined(own, largest)
        log.metrics = {"loss": sum(log.metrics[f"loss/{name}"] for name in LOSS_TERMS), **log.metrics}

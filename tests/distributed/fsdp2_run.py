"""One rank of a training run on a model sharded by FSDP2 (`fully_shard`), without accelerate, which makes DDP of it on
a CPU.

Everything but the loop is the harness's own: completions, credit on the gathered step, micro-batches, the loss inside
the sharded forward. Leaves `weights.pt` and `steps.json` in the run's folder.
"""

import json
import pickle
import sys
from pathlib import Path

import torch
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from harness.rollout.hf import HFEngine
from harness.rollout.weights import LiveWeights
from harness.scoring.hf import HFScorer
from harness.training import ranks
from harness.training.arguments import training_sampling
from harness.training.budget import Budget
from harness.training.guidance import Draw, load_or_make_responses
from harness.training.loaded import load_models
from harness.training.prompts import prompts_of
from harness.training.recorder import StepLog
from harness.training.step import micro_batches
from harness.training.trainer import DistillationTrainer, Machinery


def trainer_for(config, folder: Path) -> DistillationTrainer:
    """A DistillationTrainer on a sharded student; its loop is not used."""
    models, setting = load_models(config), config.setting
    prompts = prompts_of(setting, models.tokenizer)
    responses = None
    if config.method.needs_teacher_responses():
        sampling, everything = training_sampling(setting, models.stop_ids), range(len(prompts))
        teacher = HFEngine(models.teacher, models.vocab_size)
        responses = load_or_make_responses(folder, Draw("teacher"), teacher, prompts, sampling, everything)
    for layer in models.student.base_model.layers:
        fully_shard(layer)
    fully_shard(models.student)
    engine = HFEngine(models.student, models.vocab_size)
    machinery = Machinery(
        student=models.student,
        engine=engine,
        student_scorer=HFScorer(models.student, models.vocab_size),
        teacher_scorer=HFScorer(models.teacher, models.vocab_size),
        prompts=prompts,
        responses=responses,
        stop_ids=models.stop_ids,
        vocab_size=models.vocab_size,
        weights=LiveWeights(engine),
    )
    return DistillationTrainer(machinery, config, folder / "trainer", StepLog(), [], budget=Budget(config.setting))


def is_sharded(model: torch.nn.Module) -> bool:
    """Every parameter lies in pieces over the ranks."""
    pieces = [isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in model.parameters()]
    return isinstance(model, FSDPModule) and all(pieces)


def run(config, folder: Path) -> None:
    trainer = trainer_for(config, folder)
    model, setting = trainer.machinery.student, config.setting
    rows_of_steps, share = [], setting.prompts_per_step // ranks.count()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        setting.learning_rate,
        (setting.adam_beta1, setting.adam_beta2),
        weight_decay=setting.weight_decay,
    )
    for number in range(setting.steps):
        trainer.state.global_step = number
        slots = list(range(ranks.index() * share, (ranks.index() + 1) * share))
        assert is_sharded(model)
        with torch.no_grad(), ranks.whole_weights(model):
            rollouts = trainer.write_completions(slots, number / setting.steps)
            rows = [slot * setting.samples_per_prompt + i for slot in slots for i in range(setting.samples_per_prompt)]
            step = trainer.assign_credit(rollouts, number / setting.steps, rows)
        assert is_sharded(model)
        for batch in micro_batches(step, [setting.samples_per_prompt] * share):
            trainer.compute_loss(model, batch).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), setting.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses = ranks.combined(
            {key: value for key, value in trainer.step_log.metrics.items() if key.startswith("loss/")}, []
        )
        rows_of_steps.append({**trainer.step_log.metrics, **losses, "grad_norm": norm.full_tensor().item()})
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if ranks.index() == 0:
        torch.save(weights, folder / "weights.pt")
        (folder / "steps.json").write_text(json.dumps(rows_of_steps))


if __name__ == "__main__":
    ranks.start("cpu")
    torch.set_num_threads(1)
    for job in pickle.loads(Path(sys.argv[1]).read_bytes()):
        run(*job)
        dist.barrier()
    dist.destroy_process_group()

"""What of a Setting and its execution transformers.Trainer is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import Dataset
from transformers import TrainingArguments

from harness.config.execution import Execution
from harness.config.settings import Setting
from harness.models.private_names import DEVICE_COUNT
from harness.rollout import Sampling
from harness.training import ranks

# transformers renames it: 5.24 warns of the old name, which goes in 6
_RENAMED = "activation_checkpointing"
CHECKPOINTING = _RENAMED if _RENAMED in TrainingArguments.__dataclass_fields__ else "gradient_checkpointing"


def training_arguments(setting: Setting, execution: Execution, seed: int, folder: Path) -> TrainingArguments:
    """The Setting in the Trainer's words. A process works on one device, however many it sees."""
    on_cpu = execution.device == "cpu" or not torch.cuda.is_available()
    share = setting.prompts_per_step // ranks.count()
    micro_batch = execution.micro_batch_prompts or share  # a door derives it; without one the step is one batch
    checkpointing: dict[str, Any] = {CHECKPOINTING: execution.gradient_checkpointing}
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=setting.steps,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=share // micro_batch,
        learning_rate=setting.learning_rate,
        weight_decay=setting.weight_decay,
        adam_beta1=setting.adam_beta1,
        adam_beta2=setting.adam_beta2,
        max_grad_norm=setting.max_grad_norm,
        optim="adamw_torch" if on_cpu else "adamw_torch_fused",
        **checkpointing,
        bf16=False,
        use_cpu=on_cpu,
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
    # The Trainer would wrap the student in nn.DataParallel, cut every micro-batch over all visible GPUs, and ask for as
    # many prompts more: steps of another size. `n_gpu` is set with the device, at its first reading.
    DEVICE_COUNT.put(arguments, min(1, arguments.n_gpu))
    return arguments


def training_sampling(setting: Setting, stop_ids: tuple[int, ...]) -> Sampling:
    """How training completions are drawn; the teacher's cached responses are drawn the same way."""
    return Sampling(
        setting.max_new_tokens,
        setting.temperature,
        setting.top_p,
        stop_ids=stop_ids,
        one_end=setting.termination == "map",
    )


class Positions(Dataset):
    """Places of the whole run's prompts in their order: `prompts_per_step` of them make a step, on
    however many ranks.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


def compute_in(dtype: torch.dtype, fsdp_plugin: Any) -> None:
    """FSDP2 gathers weights in `dtype`, whatever its shards are kept in; gradients are summed in float32, the loss
    stays as it is.
    """
    reduced = torch.promote_types(dtype, torch.float32)
    fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduced)

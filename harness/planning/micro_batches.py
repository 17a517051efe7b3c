"""engine.micro_batch_prompts where it is null: as much of a step in one forward and backward pass as memory holds.

What is derived comes from sizes that do not change between two attempts of a run (the memory of the machine, not what
is free of it), and is the same for every method of a command.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from harness.config.settings import RunConfig
from harness.engines.checks import device_of
from harness.models.sizes import model_size
from harness.planning.estimate import memory_of, work_of

MOST_PROMPTS = 32  # larger passes are no faster, and have more padding (ours)
MEMORY_SHARE = 0.8  # that the estimate may fill; the rest is for its error, for fragments and for other programs
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def derived(runs: Sequence[RunConfig], side_by_side: int = 1) -> int | None:
    """What fits every trained run that leaves it open, so many of them at a time on one CPU; None: none does, or a
    model's size is not known before it is fetched.
    """
    left_open = [run for run in runs if run.method is not None and run.engine.micro_batch_prompts is None]
    found = [
        micro_batch_prompts(run, memory_at_hand(run, side_by_side), processes_of(run), on_card=device_of(run) != "cpu")
        for run in left_open
    ]
    return None if not found or None in found else math.gcd(*(number for number in found if number is not None))


def with_micro_batches(runs: Sequence[RunConfig], prompts: int | None) -> list[RunConfig]:
    """The runs with this number where it was left open."""
    return [
        replace(run, engine=replace(run.engine, micro_batch_prompts=prompts))
        if run.engine.micro_batch_prompts is None
        else run
        for run in runs
    ]


def micro_batch_prompts(run: RunConfig, memory_bytes: int, ranks: int, on_card: bool) -> int | None:
    """The largest divisor of a rank's prompts of a step, MOST_PROMPTS at most, whose update fits; 1 where none does.

    Args: memory_bytes: of a rank; on_card: it is a GPU's.
    Returns: None where a model's size is not known yet.
    """
    setting = run.setting
    student = model_size(setting.student, setting.student_revision)
    teacher = model_size(setting.teacher, setting.teacher_revision)
    if student is None or teacher is None:
        return None
    share = setting.prompts_per_step // ranks
    for candidate in (n for n in range(min(share, MOST_PROMPTS), 1, -1) if share % n == 0):
        (tried,) = with_micro_batches([run], candidate)
        work = replace(work_of(tried, ranks), card_bytes=memory_bytes if on_card else None)
        peak = memory_of(tried, student, teacher, work, memory_gib=memory_bytes / 2**30 if on_card else math.inf)
        if peak.weights + peak.adamw + peak.phases["update"] <= MEMORY_SHARE * memory_bytes:
            return candidate
    return 1


def processes_of(run: RunConfig) -> int:
    """Ranks that train the run: of its configuration, or of the launcher that this process belongs to."""
    return max(run.launch.num_processes, int(os.environ.get("WORLD_SIZE", "1")))


def memory_at_hand(run: RunConfig, side_by_side: int = 1) -> int:
    """Bytes of the run's card; on a CPU, a rank's part of the memory of the machine or its container."""
    device = device_of(run)
    if device != "cpu":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, CGROUP_LIMITS):
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits) // (max(1, side_by_side) * processes_of(run))


def derived_line(runs: Sequence[RunConfig], prompts: int | None, side_by_side: int = 1) -> str:
    """What was derived, in words; empty where nothing was left open."""
    open_runs = [run for run in runs if run.method is not None and run.engine.micro_batch_prompts is None]
    if not open_runs:
        return ""
    if prompts is None:
        return "Micro-batches: engine.micro_batch_prompts is derived once the models are here"
    memory = memory_at_hand(open_runs[0], side_by_side) / 2**30
    return f"Micro-batches: engine.micro_batch_prompts={prompts}, derived from the models and {memory:,.0f} GiB a rank"

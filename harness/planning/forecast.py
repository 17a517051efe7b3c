"""What a comparison takes before it is run, in words: `python -m harness.plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.config.settings import RunConfig, Setting
from harness.errors import UserError
from harness.models.sizes import BYTES
from harness.planning.engines import held_by_vllm
from harness.planning.estimate import (
    BOUNDS,
    CHANGES,
    JSON_BYTES_PER_TOKEN,
    Plan,
    gib,
    is_sharded,
    make_plan,
    parts_of,
    sizes_of,
    work_of,
)
from harness.planning.hardware import Hardware
from harness.planning.micro_batches import micro_batch_prompts, with_micro_batches
from harness.results.record import Counters, load_record

TOLD_SHARE = 0.01  # of a step: what a shorter phase is bound by is not told


def lines_of(run: RunConfig, made: Plan, hardware: Hardware, name: str, trained: int) -> list[str]:
    """The plan in words."""
    setting, memory, seconds = run.setting, made.memory, made.seconds
    fits = memory.total <= hardware.memory_gib * 2**30
    slowest = max(seconds.expected, key=seconds.expected.__getitem__)
    times = ", ".join(f"{k} {v:,.1f} (floor {seconds.floor[k]:,.1f})" for k, v in seconds.expected.items())
    hours = made.ranks * setting.steps * seconds.total / 3600
    final = BYTES[setting.dtype] * sizes_of(setting)[0].parameters
    change = CHANGES[memory.binding] + _or(run)
    responses = 0
    if run.method is not None and run.method.needs_teacher_responses():
        responses = setting.steps * setting.prompts_per_step * setting.max_new_tokens * JSON_BYTES_PER_TOKEN
    lines = [
        f"{setting.name}, {run.method_name}, engine {run.engine.in_words()}, on {name}: {made.ranks} "
        f"rank{'s' if made.ranks > 1 else ''}" + (", student cut over them" if is_sharded(run) else ""),
        f"  tokens a step: at most {made.tokens:,} ({setting.prompts_per_step} prompts x {setting.samples_per_prompt} "
        f"x {setting.max_new_tokens:,})",
        f"  memory of a rank, GiB: {gib(memory.total)} of {hardware.memory_gib:,.0f}: {parts_of(memory)}",
        f"    {memory.binding} binds" + ("" if fits else f"; it does not fit: give {change}"),
        *_engine_lines(run, hardware),
        f"  seconds a step: {seconds.total:,.0f}: {times}; {slowest} binds",
        *[
            f"    {phase} is bound by {BOUNDS[bound]}"
            for phase, bound in seconds.bounds.items()
            if seconds.expected[phase] >= TOLD_SHARE * seconds.total
        ],
        f"  a run of {setting.steps} steps: {setting.steps * seconds.total / 3600:,.1f} h, {hours:,.0f} GPU hours; "
        f"{gib(made.disk)} GiB of disk while it trains, {gib(final)} after",
        f"  all {trained} trained runs: {trained * hours:,.0f} GPU hours, "
        f"{gib(trained * final + made.disk + responses)} GiB of disk (evaluation not counted)",
    ]
    return lines


def fitted(runs: Sequence[RunConfig], hardware: Hardware) -> list[RunConfig]:
    """A run of every method, with what the hardware holds where engine.micro_batch_prompts was left open."""
    methods = list({run.method_name: run for run in runs}.values())
    memory = int(hardware.memory_gib * 2**30)
    return [
        with_micro_batches([run], micro_batch_prompts(run, memory, hardware.ranks, on_card=hardware.gpu))[0]
        for run in methods
    ]


def _or(run: RunConfig) -> str:
    """What else makes room where engines of vLLM are beside the trainer."""
    beside = "vllm" in (run.engine.who("student"), run.engine.who("teacher"))
    return ", or engine.vllm.sleep=true" if beside and not run.engine.vllm.sleep else ""


def _engine_lines(run: RunConfig, hardware: Hardware) -> list[str]:
    """What engines of vLLM are opened with, one on each card that they work on."""
    held = held_by_vllm(run, *sizes_of(run.setting), work_of(run, 1).length + 1, memory_gib=hardware.memory_gib)
    return [
        f"    vLLM, {role}: {gib(engine.weights)} GiB of weights, {gib(engine.cache)} of cache: {engine.sequences} "
        f"sequences of {engine.length:,} tokens side by side, "
        + ("alone" if not engine.beside else "asleep between its phases" if engine.sleeps else "beside the trainer")
        for role, engine in held.items()
    ]


def show(runs: Sequence[RunConfig], hardware: Hardware, name: str) -> int:
    """Prints the plan of a comparison: of each of its settings, the method that takes most."""
    runs = [run for run in runs if run.method is not None]
    if not runs:
        raise UserError("nothing is trained: give method=… of baselines/.")
    by_setting: dict[str, list[RunConfig]] = {}
    for run in runs:
        by_setting.setdefault(run.setting.name, []).append(run)
    for same in by_setting.values():
        plans = [(make_plan(run, hardware), run) for run in fitted(same, hardware)]
        made, run = max(plans, key=lambda pair: pair[0].seconds.total)
        print("\n".join(lines_of(run, made, hardware, name, trained=len(same))))
        if any(other.engine.micro_batch_prompts is None for other in same):
            print(f"  engine.micro_batch_prompts={run.engine.micro_batch_prompts}, derived for this memory")
    return 0


def beside(folder: Path, planned: RunConfig, hardware: Hardware) -> int:
    """Prints the prediction for a finished run, at the lengths that it had and executed as `planned`, beside its
    record.
    """
    record = load_record(folder / "record.json")
    if not record.counters.steps:
        raise UserError(f"{folder} has trained nothing.")
    run = replace(planned, setting=Setting.of_record(record.setting), method_name=record.method)
    (run,) = fitted([run], hardware)
    counters = record.counters
    steps, per_step = counters.steps, run.setting.prompts_per_step * run.setting.samples_per_prompt
    made = make_plan(run, hardware, completion=max(1, round(counters.scored_tokens / steps / per_step)))
    print(f"{'':<24}{'predicted':>12}{'measured':>12}")
    for phase, measured in _measured(counters).items():
        print(f"{f'{phase}, s a step':<24}{made.seconds.expected[phase]:>12.2f}{measured / steps:>12.2f}")
    peak = counters.peak_gpu_memory_bytes or counters.peak_memory_bytes
    print(f"{'peak memory, GiB':<24}{gib(made.memory.total):>12}{gib(peak):>12}")
    if not counters.peak_gpu_memory_bytes:
        print("Measured memory is the whole process, of which Python and its libraries are about 0.5 GiB on a CPU.")
    return 0


def _measured(counters: Counters) -> dict[str, float]:
    return {"rollout": counters.rollout_s, "scoring": counters.scoring_s, "update": counters.update_s}

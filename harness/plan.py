"""`python -m harness.plan setting=… hardware=…`: what a comparison takes before it is run, and what binds.

    hardware=h100_x8       a file of conf/hardware/; every other argument is harness.run's
    python -m harness.plan results/…/seed0 hardware=…     the prediction beside what that run measured

Memory is that of harness.memory. Seconds are floors (the work over the hardware's peak, bytes for decoding, operations for scoring
and updating), divided by the shares of the peak that such work reaches (compute_share, bandwidth_share). Every completion counts at
full length. Exit code: 0, or 2 for bad input.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import OmegaConf

from harness.config import CONF_DIR, RunConfig, Setting, strict
from harness.cost import BYTES, ModelSize, model_size
from harness.errors import UserError
from harness.memory import Peak, Work, predict
from harness.results.record import Counters, load_record
from harness.run import exit_code_of, plan, register_methods_or_exit

JSON_BYTES_PER_TOKEN = 7  # of a cached teacher response
RESUMABLE = 2  # checkpoints that are kept while a run trains
LORA_SHARE = 0.02  # of the parameters, about, that adapters of rank 32 are
CHANGES = {  # what to give when a phase does not fit
    "rollout": "a smaller engine.rows_per_batch, or engine=vllm",
    "scoring": "the teacher elsewhere: engine.teacher_device=…, or engine=server",
    "update": "a smaller engine.micro_batch_prompts, or engine.gradient_checkpointing=true",
    "optimiser": "launch.accelerate_config=conf/accelerate/fsdp2.yaml, which cuts weights, gradients and moments over the ranks",
}


@dataclass(frozen=True)
class Hardware:
    """What a plan needs to know of the machines, per rank."""

    ranks: int
    memory_gib: float
    flops: float  # per second, of the models' number type
    bytes_per_s: float  # of the rank's memory
    link_bytes_per_s: float  # between ranks, one way
    compute_share: float  # of flops that training and scoring reach
    bandwidth_share: float  # of bytes_per_s that decoding reaches


def load_hardware(name: str) -> Hardware:
    """A file of conf/hardware/ by name."""
    path = CONF_DIR / "hardware" / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise UserError(f"hardware={name!r}: must be one of {', '.join(known)}.")
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    return strict(Hardware, {str(key): value for key, value in values.items()}, "hardware")


@dataclass(frozen=True)
class Seconds:
    """One step, by phase: the floor at the hardware's peak, and what is expected."""

    floor: dict[str, float]
    expected: dict[str, float]

    @property
    def total(self) -> float:
        """Expected, one phase after the other."""
        return sum(self.expected.values())


@dataclass(frozen=True)
class Plan:
    """One run on some hardware."""

    ranks: int
    memory: Peak
    seconds: Seconds
    tokens: int  # of a step, all ranks, at most
    disk: int  # bytes, while it trains


def is_sharded(run: RunConfig) -> bool:
    """Whether the configuration cuts the student over the ranks (FSDP, ZeRO)."""
    if run.launch.accelerate_config is None:
        return False
    path = Path(run.launch.accelerate_config)
    if not path.is_file():
        raise UserError(f"launch.accelerate_config={str(path)!r}: there is no such file.")
    return str(OmegaConf.select(OmegaConf.load(path), "distributed_type")) in ("FSDP", "DEEPSPEED")


def work_of(run: RunConfig, ranks: int, completion: int | None = None) -> Work:
    """One rank's share of a step of this run; `completion` in place of the longest that is possible."""
    setting = run.setting
    guided = run.method is not None and run.method.needs_teacher_responses()
    sequences = math.ceil(setting.prompts_per_step / ranks) * setting.samples_per_prompt
    return Work(
        sequences=sequences,
        rows=min(sequences, run.engine.rows_per_batch),
        prompt=setting.max_prompt_tokens,
        completion=completion or setting.max_new_tokens * (2 if guided else 1),
        micro_sequences=run.engine.micro_batch_prompts * setting.samples_per_prompt,
        dtype=setting.dtype,
        shards=ranks if is_sharded(run) else 1,
        checkpointing=run.engine.gradient_checkpointing,
        trainable=LORA_SHARE if setting.lora_rank else 1.0,
    )


def make_plan(run: RunConfig, hardware: Hardware, completion: int | None = None) -> Plan:
    """The plan of one run; UserError where a model's size is not known here."""
    student, teacher = sizes_of(run.setting)
    work = work_of(run, hardware.ranks, completion)
    seconds = seconds_of(work, student, teacher, hardware)
    elsewhere = run.engine.teacher_device is not None or run.engine.name != "hf"
    size = BYTES[run.setting.dtype] * student.parameters
    return Plan(
        ranks=hardware.ranks,
        memory=predict(student, teacher, work, teacher_here=not elsewhere),
        seconds=seconds,
        tokens=hardware.ranks * work.sequences * run.setting.max_new_tokens,
        disk=size * (1 + RESUMABLE * 3),  # a checkpoint to go on from has AdamW's two moments
    )


def sizes_of(setting: Setting) -> tuple[ModelSize, ModelSize]:
    """Student's and teacher's."""
    found = []
    for name, revision in ((setting.student, setting.student_revision), (setting.teacher, setting.teacher_revision)):
        size = model_size(name, revision)
        if size is None:
            raise UserError(f"the size of {name!r} is not known before it has been fetched; give a local folder.")
        found.append(size)
    return found[0], found[1]


def seconds_of(work: Work, student: ModelSize, teacher: ModelSize, hardware: Hardware) -> Seconds:
    """A step of one rank; with several, what they tell each other counts as a phase."""
    size = BYTES[work.dtype]
    batches = math.ceil(work.sequences / work.rows)
    own = work.sequences * work.completion
    cached = work.sequences * (work.completion * work.prompt + work.completion**2 / 2)  # positions read, over all steps
    read = batches * work.completion * size * student.parameters + cached * size * student.cached_numbers
    decode = {"bytes": read / hardware.bytes_per_s, "flops": 2 * student.parameters * own / hardware.flops}
    scored = work.sequences * work.length
    passes = 4 if work.checkpointing else 3  # forward passes that an update is worth
    scoring = _forward_flops(teacher, scored, work.length) / hardware.flops
    update = passes * _forward_flops(student, scored, work.length) / hardware.flops
    optimiser = 7 * size * student.parameters * work.trainable / work.shards / hardware.bytes_per_s
    floor = {"rollout": max(decode.values()), "scoring": scoring, "update": update + optimiser}
    expected = {
        "rollout": max(decode["bytes"] / hardware.bandwidth_share, decode["flops"] / hardware.compute_share),
        "scoring": scoring / hardware.compute_share,
        "update": update / hardware.compute_share + optimiser / hardware.bandwidth_share,
    }
    if hardware.ranks > 1:
        rounds = 2.0  # an all-reduce sends every gradient twice
        if work.shards > 1:
            rounds = 3.0 * math.ceil(
                work.sequences / work.micro_sequences
            )  # gather, gather again, scatter; each micro-batch
        sent = rounds * size * student.parameters * work.trainable / hardware.link_bytes_per_s
        floor["communication"] = expected["communication"] = sent
    return Seconds(floor, expected)


def _forward_flops(model: ModelSize, tokens: int, length: int) -> float:
    """Two per parameter and token, and attention's part that grows with the length."""
    return 2.0 * model.parameters * tokens + 2.0 * model.layers * model.attention * length * tokens


def gib(count: float) -> str:
    """Bytes in GiB."""
    return f"{count / 2**30:,.1f}"


def lines_of(run: RunConfig, made: Plan, hardware: Hardware, name: str, trained: int) -> list[str]:
    """The plan in words."""
    setting, memory, seconds = run.setting, made.memory, made.seconds
    fits = memory.total <= hardware.memory_gib * 2**30
    phases = ", ".join(f"{phase} {gib(value)}" for phase, value in memory.phases.items())
    slowest = max(seconds.expected, key=seconds.expected.__getitem__)
    times = ", ".join(f"{k} {v:,.1f} (floor {seconds.floor[k]:,.1f})" for k, v in seconds.expected.items())
    hours = made.ranks * setting.steps * seconds.total / 3600
    final = BYTES[setting.dtype] * sizes_of(setting)[0].parameters
    responses = 0
    if run.method is not None and run.method.needs_teacher_responses():
        responses = setting.steps * setting.prompts_per_step * setting.max_new_tokens * JSON_BYTES_PER_TOKEN
    lines = [
        f"{setting.name}, {run.method_name}, engine {run.engine.name}, on {name}: {made.ranks} rank{'s' if made.ranks > 1 else ''}"
        + (", student cut over them" if is_sharded(run) else ""),
        f"  tokens a step: at most {made.tokens:,} ({setting.prompts_per_step} prompts x {setting.samples_per_prompt} x "
        f"{setting.max_new_tokens:,})",
        f"  memory of a rank, GiB: {gib(memory.total)} of {hardware.memory_gib:,.0f}: models {gib(memory.weights)}, "
        f"AdamW {gib(memory.moments)}, and the largest of {phases}",
        f"    {memory.binding} binds" + ("" if fits else f"; it does not fit: give {CHANGES[memory.binding]}"),
        f"  seconds a step: {seconds.total:,.0f}: {times}; {slowest} binds",
        f"  a run of {setting.steps} steps: {setting.steps * seconds.total / 3600:,.1f} h, {hours:,.0f} GPU hours; "
        f"{gib(made.disk)} GiB of disk while it trains, {gib(final)} after",
        f"  all {trained} trained runs: {trained * hours:,.0f} GPU hours, {gib(trained * final + made.disk + responses)} GiB of disk "
        "(evaluation not counted)",
    ]
    return lines


def show(arguments: Sequence[str], hardware: Hardware, name: str) -> int:
    """The plan of a comparison: of each of its settings, the method that takes most."""
    runs = [run for run in plan(arguments) if run.method is not None]
    if not runs:
        raise UserError("nothing is trained: give method=… of baselines/.")
    by_setting: dict[str, list[RunConfig]] = {}
    for run in runs:
        by_setting.setdefault(run.setting.name, []).append(run)
    for same in by_setting.values():
        plans = [(make_plan(run, hardware), run) for run in {run.method_name: run for run in same}.values()]
        made, run = max(plans, key=lambda pair: pair[0].seconds.total)
        print("\n".join(lines_of(run, made, hardware, name, len(same))))
    return 0


def beside(folder: Path, arguments: Sequence[str], hardware: Hardware) -> int:
    """The prediction for a finished run, at the lengths that it had, beside its record."""
    record = load_record(folder / "record.json")
    if not record.counters.steps:
        raise UserError(f"{folder} has trained nothing.")
    (first, *_) = plan([*arguments, "method=opd", "seed=0"])
    run = replace(first, setting=strict(Setting, record.setting, "setting"), method_name=record.method)
    counters = record.counters
    steps, per_step = counters.steps, run.setting.prompts_per_step * run.setting.samples_per_prompt
    made = make_plan(run, hardware, completion=max(1, round(counters.scored_tokens / steps / per_step)))
    print(f"{'':<24}{'predicted':>12}{'measured':>12}")
    for phase, measured in _measured(counters).items():
        print(f"{f'{phase}, s a step':<24}{made.seconds.expected[phase]:>12.2f}{measured / steps:>12.2f}")
    print(f"{'peak memory, GiB':<24}{gib(made.memory.total):>12}{gib(counters.peak_memory_bytes):>12}")
    print("Measured memory is the whole process, of which Python and its libraries are about 0.5 GiB on a CPU.")
    return 0


def _measured(counters: Counters) -> dict[str, float]:
    return {"rollout": counters.rollout_s, "scoring": counters.scoring_s, "update": counters.update_s}


def main() -> None:
    """The command."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    register_methods_or_exit()
    name = next((a.partition("=")[2] for a in arguments if a.startswith("hardware=")), "")
    folders = [a for a in arguments if "=" not in a]
    rest = [a for a in arguments if "=" in a and not a.startswith("hardware=")]

    def command() -> int:
        if not name:
            raise UserError("hardware=… is missing; see python -m harness.plan --help.")
        hardware = load_hardware(name)
        if folders:
            return max(beside(Path(folder), rest, hardware) for folder in folders)
        return show(rest, hardware, name)

    sys.exit(exit_code_of(command))


if __name__ == "__main__":
    main()

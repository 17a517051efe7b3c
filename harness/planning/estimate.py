"""What a run takes on some hardware: memory, seconds and disk."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from harness.config.settings import RunConfig, Setting
from harness.engines.caches import OPTIMISER_BYTES, ROWS, rows_that_fit
from harness.errors import UserError
from harness.evaluation.checkpoint import longest_asked
from harness.models.sizes import BYTES, ModelSize, decoded_row_bytes, model_size
from harness.planning.engines import held_by_vllm
from harness.planning.hardware import Hardware
from harness.planning.memory import BASE_BYTES, Peak, Work, predict
from harness.training.ranks import distributed_type

JSON_BYTES_PER_TOKEN = 7  # of a cached teacher response


RESUMABLE = 2  # checkpoints that are kept while a run trains


LORA_SHARE = 0.02  # of the parameters, about, that adapters of rank 32 are


CHANGES = {  # what to give when a phase does not fit
    "rollout": "a smaller engine.rows_per_batch, or engine=vllm",
    "scoring": "the teacher elsewhere: engine.teacher_device=…, or engine.server.teacher_devices of its servers",
    "update": "a smaller engine.micro_batch_prompts, or engine.gradient_checkpointing=true",
    "teacher text": "a smaller engine.rows_per_batch",
    "evaluation": "a smaller engine.rows_per_batch, or evaluation.max_new_tokens",
    "optimiser": "launch.accelerate_config=conf/accelerate/fsdp2.yaml, cutting weights, gradients and moments",
}


# What the host takes for one decoded position of a batch, however fast the card, and for a token of the whole step
# beside all models: measured on a core of an AMD EPYC (tests/measure/decode.py, host.py), assumed elsewhere.
HOST_POSITION_S, HOST_LAYER_S = 1.3e-3, 0.23e-3
HOST_TOKEN_S = 0.35e-6
BOUNDS = {  # what a phase may be bound by, and what would move it
    "kernels": "the host, which starts kernels; CUDA graphs (engine=vllm), more rows at a time",
    "weights": "reading the weights for every position; more rows at a time (engine.rows_per_batch)",
    "cache": "reading the cache; shorter completions, more ranks",
    "operations": "operations; more ranks",
    "recomputation": "operations, a quarter of them again; engine.gradient_checkpointing=false, more ranks",
    "optimiser": "the optimiser's memory; conf/accelerate/fsdp2.yaml, setting.lora_rank",
    "host": "the host, on every rank for the whole step; smaller steps",
    "link": "the link between ranks; fewer and larger micro-batches where the student is cut",
}


@dataclass(frozen=True)
class Seconds:
    """One step, by phase: the floor at the hardware's peak, what is expected, and what it is bound by (BOUNDS)."""

    floor: dict[str, float]
    expected: dict[str, float]
    bounds: dict[str, str]

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
    """Whether the configuration cuts the student over the ranks."""
    return distributed_type(run.launch.accelerate_config) == "FSDP"


def work_of(run: RunConfig, ranks: int, completion: int | None = None) -> Work:
    """One rank's share of a step of this run; `completion` in place of the longest that is possible."""
    setting = run.setting
    guided = run.method is not None and run.method.needs_teacher_responses()
    sequences = math.ceil(setting.prompts_per_step / ranks) * setting.samples_per_prompt
    return Work(
        sequences=sequences,
        rows=min(sequences, run.engine.rows_per_batch or ROWS),
        prompt=setting.max_prompt_tokens,
        completion=completion or setting.max_new_tokens * (2 if guided else 1),
        micro_sequences=(run.engine.micro_batch_prompts or math.ceil(setting.prompts_per_step / ranks))
        * setting.samples_per_prompt,
        dtype=setting.dtype,
        shards=ranks if is_sharded(run) else 1,
        checkpointing=run.engine.gradient_checkpointing,
        trainable=LORA_SHARE if setting.lora_rank else 1.0,
        graphed=run.engine.who("student") != "hf" and not run.engine.vllm.eager,
    )


def make_plan(run: RunConfig, hardware: Hardware, completion: int | None = None) -> Plan:
    """The plan of one run; UserError where a model's size is not known here."""
    student, teacher = sizes_of(run.setting)
    card = int(hardware.memory_gib * 2**30) if hardware.gpu else None
    work = replace(work_of(run, hardware.ranks, completion), card_bytes=card)
    memory = memory_of(run, student, teacher, work, memory_gib=hardware.memory_gib)
    work = replace(work, rows=rows_of(run, student, teacher, work, memory_gib=hardware.memory_gib)["rollout"])
    seconds = seconds_of(work, student, teacher, hardware)
    size = BYTES[run.setting.dtype]
    wide = max(4, size)
    return Plan(
        ranks=hardware.ranks,
        memory=memory,
        seconds=seconds,
        tokens=hardware.ranks * work.sequences * run.setting.max_new_tokens,
        # a checkpoint to go on from has AdamW's two moments and, of narrow weights, the masters
        disk=student.parameters * (size + RESUMABLE * (size + wide * (3 if wide > size else 2))),
    )


def memory_of(run: RunConfig, student: ModelSize, teacher: ModelSize, work: Work, memory_gib: float = math.inf) -> Peak:
    """The peak of one rank that has this work of the run, on a device of so much memory."""
    rows = rows_of(run, student, teacher, work, memory_gib=memory_gib)
    peak = predict(student, teacher, replace(work, rows=rows["rollout"]), teacher_here=teacher_is_here(run))
    engines = held_by_vllm(run, student, teacher, work.length + 1, memory_gib=memory_gib)
    awake = sum(held.total for held in engines.values() if held.beside and not held.sleeps)
    phases = dict(peak.phases)
    if run.engine.who("student") != "hf":
        phases["rollout"] = BASE_BYTES
    for role, phase in (("student", "rollout"), ("teacher", "scoring")):
        if role in engines and engines[role].sleeps:
            phases[phase] += engines[role].total
    peak = replace(peak, weights=peak.weights + awake, phases=phases)
    held = {"teacher text": peak.weights, "evaluation": BYTES[work.dtype] * student.parameters}
    sizes = _decoded(run, student, teacher, work)
    outside = {name: held[name] + rows[name] * sizes[name] + BASE_BYTES for name in held if name in sizes}
    if "evaluation" in engines:
        outside["evaluation"] = engines["evaluation"].total + BASE_BYTES
    return replace(peak, outside=outside)


def rows_of(run: RunConfig, student: ModelSize, teacher: ModelSize, work: Work, memory_gib: float) -> dict[str, int]:
    """Rows that are decoded side by side, by phase: by transformers as asked for, or what memory holds
    (engines.caches), by vLLM what its cache does."""
    sizes = _decoded(run, student, teacher, work)
    asked = run.engine.rows_per_batch
    if asked is None and memory_gib < math.inf:
        weights = predict(student, teacher, work, teacher_here=teacher_is_here(run)).weights
        later = {"rollout": OPTIMISER_BYTES * int(student.parameters * work.trainable) // work.shards}
        free = {name: int(memory_gib * 2**30) - weights - later.get(name, 0) for name in sizes}
        fitting = {name: rows_that_fit(sizes[name], free[name]) for name in sizes}
    else:
        fitting = dict.fromkeys(sizes, asked or ROWS)
    if run.engine.who("student") != "hf":
        by_vllm = held_by_vllm(run, student, teacher, work.length + 1, memory_gib=memory_gib)
        fitting["rollout"] = by_vllm["student"].sequences if "student" in by_vllm else run.engine.vllm.max_sequences
    return {**fitting, "rollout": min(work.sequences, fitting["rollout"])}


def _decoded(run: RunConfig, student: ModelSize, teacher: ModelSize, work: Work) -> dict[str, int]:
    """Bytes of one row that transformers decodes, by phase."""
    setting, longest = run.setting, min(longest_asked(run.evaluation), student.context)
    sizes = {"rollout": decoded_row_bytes(student, work.length, work.dtype)}
    if run.method is not None and run.method.needs_teacher_responses() and teacher_is_here(run):
        length = setting.max_prompt_tokens + setting.max_new_tokens
        sizes["teacher text"] = decoded_row_bytes(teacher, length, work.dtype)
    if longest and run.engine.who("evaluation") == "hf":
        sizes["evaluation"] = decoded_row_bytes(student, longest, work.dtype)
    return sizes


def teacher_is_here(run: RunConfig) -> bool:
    """Whether the teacher is on the student's device, in the process of the trainer."""
    return run.engine.teacher_device is None and run.engine.who("teacher") == "hf"


def parts_of(memory: Peak) -> str:
    """What a peak is made of, in words and GiB."""
    phases = ", ".join(f"{phase} {gib(value)}" for phase, value in memory.phases.items())
    outside = "".join(f"; {phase} {gib(value)} in all" for phase, value in memory.outside.items())
    return f"models {gib(memory.weights)}, AdamW {gib(memory.adamw)}, and the largest of {phases}{outside}"


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
    rollout = _rollout_seconds(work, student, hardware)
    scored = work.sequences * work.length
    passes = 4 if work.checkpointing else 3  # forward passes that an update is worth
    scoring = _forward_flops(teacher, scored, work.length) / hardware.flops
    update = passes * _forward_flops(student, scored, work.length) / hardware.flops
    optimiser = 7 * max(4, size) * student.parameters * work.trainable / work.shards / hardware.bytes_per_s
    slow = {"update": update / hardware.compute_share, "optimiser": optimiser / hardware.bandwidth_share}
    credit = HOST_TOKEN_S * hardware.ranks * work.sequences * work.completion
    floor = {"rollout": rollout.floor, "scoring": scoring, "credit": credit, "update": update + optimiser}
    expected = {
        "rollout": rollout.expected,
        "scoring": scoring / hardware.compute_share,
        "credit": credit,
        "update": sum(slow.values()),
    }
    operations = "recomputation" if work.checkpointing else "operations"
    bounds = {
        "rollout": rollout.bound,
        "scoring": "operations",
        "credit": "host",
        "update": operations if slow["update"] >= slow["optimiser"] else "optimiser",
    }
    if hardware.ranks > 1:
        rounds = 2.0  # an all-reduce sends every gradient twice
        if work.shards > 1:
            # gather, gather again, scatter; each micro-batch
            rounds = 3.0 * math.ceil(work.sequences / work.micro_sequences)
        sent = rounds * size * student.parameters * work.trainable / hardware.link_bytes_per_s
        floor["communication"] = expected["communication"] = sent
        bounds["communication"] = "link"
    return Seconds(floor, expected, bounds)


@dataclass(frozen=True)
class _Decoding:
    """Seconds of a rank's rollouts."""

    floor: float
    expected: float
    bound: str


def _rollout_seconds(work: Work, student: ModelSize, hardware: Hardware) -> _Decoding:
    """A GPU works while the host starts its next kernels; a CPU does one after the other."""
    size = BYTES[work.dtype]
    positions = math.ceil(work.sequences / work.rows) * work.completion  # decoded one after the other
    own = work.sequences * work.completion
    cached = work.sequences * (work.completion * work.prompt + work.completion**2 / 2)  # positions read, over all steps
    weights, cache = positions * size * student.parameters, cached * size * student.cached_numbers  # bytes
    read = (weights + cache) / hardware.bytes_per_s
    operations = 2 * student.parameters * own / hardware.flops
    parts = {
        "weights" if weights >= cache else "cache": read / hardware.bandwidth_share,
        "operations": operations / hardware.compute_share,
        "kernels": 0.0 if work.graphed else positions * (HOST_POSITION_S + HOST_LAYER_S * student.layers),
    }
    bound = max(parts, key=parts.__getitem__)
    started = 0.0 if hardware.gpu else parts.pop("kernels")
    return _Decoding(max(read, operations), max(parts.values()) + started, bound)


def _forward_flops(model: ModelSize, tokens: int, length: int) -> float:
    """Two per parameter and token, and attention's part that grows with the length."""
    return 2.0 * model.parameters * tokens + 2.0 * model.layers * model.attention * length * tokens


def gib(count: float) -> str:
    """Bytes in GiB."""
    return f"{count / 2**30:,.1f}"

"""Peak memory of one rank, phase by phase: what is added to the loaded models while a run trains.

    resident    gradients are freed after every update; AdamW's moments stay (they do not exist in the first rollout),
                and with bfloat16 weights their float32 masters; FSDP2's shards are masters themselves
    rollout     the cache at full length and its copy while it grows, the logits of one decoded position
    scoring     one padded forward of the teacher, the hidden states that are kept, one chunk of logits
    update      a micro-batch's activations, one chunk of logits, the head's gradient in float32, all gradients
    optimiser   all gradients, and temporaries of the largest weight

Derived from the code (harness.rollout.hf, harness.scoring.hf, harness.numerics.loss) and the layers of a Qwen model;
three constants are fitted on measured CPU runs (tests/measure/plan_memory.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.models.sizes import BYTES, ModelSize, decoded_row_bytes
from harness.numerics.logprobs import CARD_PART, chunk_bytes
from harness.scoring.hf import KEPT_HIDDEN_BYTES, TOKENS_PER_FORWARD
from harness.training.masters import BUCKET_NUMBERS

# numbers kept for the backward pass per token and layer, in hidden widths (two norms, attention, residuals)
ACTIVATIONS_HIDDEN = 12
ACTIVATIONS_INTERMEDIATE = 4  # likewise, in intermediate widths (gate, up, their product, the activation)
FORWARD_WIDTHS = 2  # of a layer's activations, alive in a forward pass without gradient

# Those with the smallest largest error on ten CPU runs, where the allocator keeps what was freed
# (tests/measure/plan_memory.py).
BASE_BYTES = 24 * 2**20  # of the Trainer, its buffers and the rollouts as Python objects
WEIGHTS_FACTOR = 1.06  # of gradients and moments
ACTIVATION_FACTOR = 1.38  # of activations


@dataclass(frozen=True)
class Work:
    """One rank's share of a step."""

    sequences: int  # of the step, on this rank
    rows: int  # decoded side by side
    prompt: int  # tokens
    completion: int  # tokens, at most, a prefix included
    micro_sequences: int  # in one forward and backward pass
    dtype: str
    shards: int = 1  # ranks over which the student's weights, gradients and moments are cut; 1: whole on each
    checkpointing: bool = False
    trainable: float = 1.0  # share of the student's parameters that is trained
    card_bytes: int | None = None  # of the GPU; None: a CPU
    graphed: bool = False  # decoding is replayed from CUDA graphs

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.prompt + self.completion


@dataclass(frozen=True)
class Peak:
    """Bytes of one rank: what stays, and what each phase adds to it."""

    weights: int
    adamw: int  # two moments and, of narrow weights, the masters, all of them float32 at least
    phases: dict[str, int]
    outside: dict[str, int] = field(default_factory=dict)  # all that is there before and after the training

    @property
    def binding(self) -> str:
        """The phase with the peak, in training or outside of it."""
        training = {name: self.weights + self.adamw + own for name, own in self.phases.items()}
        everything = {**training, **self.outside}
        return max(everything, key=everything.__getitem__)

    @property
    def extra(self) -> int:
        """Above the loaded models."""
        return self.adamw + max(self.phases.values())

    @property
    def total(self) -> int:
        """With the models, at any time."""
        return max(self.weights + self.extra, *self.outside.values(), 0)


def predict(student: ModelSize, teacher: ModelSize, work: Work, teacher_here: bool = True) -> Peak:
    """The peak of a rank whose engine and scorers are transformers in the process of the trainer."""
    size, wide = BYTES[work.dtype], max(4, BYTES[work.dtype])
    trained = int(student.parameters * work.trainable)
    narrow = wide > size and work.trainable == 1  # adapters are float32
    sharded = work.shards > 1
    head = student.vocab_size * student.hidden
    position = max(4, size) * student.vocab_size  # bytes of one position's logits
    largest = chunk_bytes(position, work.card_bytes)
    chunk = min(largest, position * work.micro_sequences * work.completion)
    gradients = int(WEIGHTS_FACTOR * (wide if sharded else size) * trained / work.shards)
    whole = size * student.parameters if sharded else 0  # gathered while it samples
    rollout = work.rows * decoded_row_bytes(student, work.length, work.dtype) + whole
    forward_tokens = min(TOKENS_PER_FORWARD, work.sequences * work.length)
    widths = _layer_numbers(teacher) * FORWARD_WIDTHS
    kept = min(
        max(KEPT_HIDDEN_BYTES, (work.card_bytes or 0) // CARD_PART),
        size * teacher.hidden * work.sequences * work.completion,
    )
    read = min(largest, position * work.sequences * work.completion)
    scoring = size * widths * forward_tokens // 4 + kept + read + whole
    tokens = work.micro_sequences * work.length
    if work.checkpointing:
        activations = size * tokens * (student.layers * student.hidden + _layer_numbers(student))
    else:
        activations = size * tokens * student.layers * _layer_numbers(student)
    head_gradient = int(WEIGHTS_FACTOR * wide * head) if work.trainable == 1 else 0
    update = int(ACTIVATION_FACTOR * activations) + chunk + head_gradient + gradients
    bucket = 4 * min(BUCKET_NUMBERS, trained) if narrow and not sharded else 0  # gradients in float32
    optimiser = gradients + bucket + int(WEIGHTS_FACTOR * 2 * wide * head / work.shards)
    phases = {"rollout": rollout, "scoring": scoring, "update": update, "optimiser": optimiser}
    return Peak(
        weights=(wide if sharded else size) * student.parameters // work.shards
        + size * teacher.parameters * teacher_here,
        adamw=int(WEIGHTS_FACTOR * wide * (3 if narrow and not sharded else 2) * trained / work.shards),
        phases={name: value + BASE_BYTES for name, value in phases.items()},
    )


def _layer_numbers(model: ModelSize) -> int:
    """Numbers that a layer keeps of one token for the backward pass."""
    return ACTIVATIONS_HIDDEN * max(model.hidden, model.attention) + ACTIVATIONS_INTERMEDIATE * model.intermediate

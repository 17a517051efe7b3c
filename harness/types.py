"""The records that pass between the rooms of the harness, and the base class of a method.

Shape legend: B sequences, T completion positions (right-padded), K teacher top-k, P prompts, V vocabulary. Log-probs
and entropies are in nats, lengths in tokens. Padded entries of every [B, T] tensor are 0 (or False).
"""

from __future__ import annotations

if __name__ == "types":  # the standard library asks for its own: a file of this folder was started by its path
    import sys

    name = sys.argv[0].rpartition("/")[2].removesuffix(".py")
    given = " " * (len(sys.argv) > 1) + " ".join(sys.argv[1:])
    print(f"error: a command is started by its name: python -m harness.{name}{given}", file=sys.stderr)
    sys.exit(2)

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias

if TYPE_CHECKING:  # the records are looked at without torch too: a help text must not wait for it
    from torch import Tensor


class _Fields:
    """Answers for an attribute that a record has not with those that it has: a method is written against them."""

    if not TYPE_CHECKING:  # a checker knows them

        def __getattr__(self, name: str) -> NoReturn:
            known = ", ".join(self.__dataclass_fields__)
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {known}", name=name, obj=self)


Writer = Literal["student", "teacher", "reference"]
StopReason = Literal["stop", "length"]
UNTRAINED = ("student", "teacher")  # rows of a table that are evaluated only


@dataclass(frozen=True)
class Rollout:
    """One completion: an optional teacher prefix, then what the student wrote."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]  # prefix + continuation; ends with a stop token if stop_reason is "stop"
    prefix_len: int  # how many completion tokens the student did not write
    # the student's log-prob of every completion token, at sampling time (0 for a prefix that was not scored)
    logprobs: tuple[float, ...]
    policy_version: int  # optimiser updates behind the weights that wrote it
    stop_reason: StopReason
    prompt_id: str
    sample_index: int  # which of the samples of this prompt
    # of any end token at all, at every token that the student wrote, if asked for
    stop_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class TokenBatch(_Fields):
    """The padded optimiser step. `logits[:, t]` of a scored sequence predicts `labels[:, t]`: the shift is done
    already.
    """

    labels: Tensor  # [B, T] long, completion tokens
    on_policy_mask: Tensor  # [B, T] bool, tokens that the student wrote
    prefix_mask: Tensor  # [B, T] bool, tokens that it did not write (teacher prefix, teacher text, reference)
    rollout_logprobs: Tensor  # [B, T] float, the student's log-probs at sampling time
    uniforms: Tensor  # [B, T] float in [0, 1), the stream `credit`: the only randomness that a method may use


@dataclass(frozen=True)
class SignalRequest:
    """What `credit` reads beyond the log-probs of the sampled tokens, and whether it reads those. Each is paid for only
    if asked for; what was not asked for is None, or log-probs of NaN.
    """

    teacher_topk: bool = False  # ids and log-probs of the teacher's top k (k belongs to the Setting)
    student_at_topk: bool = False  # the student's log-probs at those ids
    teacher_entropy: bool = False  # over the whole vocabulary
    student_entropy: bool = False  # over the whole vocabulary
    full_vocabulary: bool = False  # the support of the direct term is the whole shared vocabulary instead of the top k
    teacher: bool = True  # False: neither credit nor the direct term reads the teacher, and it does not score the step
    # False: credit does not read the student's log-probs, and tokens that it did not write are not scored for them
    student: bool = True


@dataclass(frozen=True)
class TokenSignal(_Fields):
    """One model's view of a TokenBatch, without gradient; the same type for teacher and student."""

    logprobs: Tensor  # [B, T] float, of labels
    topk_ids: Tensor | None = None  # [B, T, K] long, the teacher's top k
    topk_logprobs: Tensor | None = None  # [B, T, K] float, this model's log-probs at topk_ids
    entropy: Tensor | None = None  # [B, T] float; the lower bound where only the most probable tokens are known
    entropy_upper: Tensor | None = None  # [B, T] float, its upper bound then; None where `entropy` is exact
    stop_logprobs: Tensor | None = None  # [B, T] float, of any end token at all; for the metrics


# (teacher [N, K], student [N, K]) log-probs at the same ids -> [N]
Divergence: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"


@dataclass(frozen=True)
class TokenCredit:
    """How much of each of the three gradient terms every token gets (see harness.numerics.credit)."""

    advantages: Tensor  # [B, T] float, on sampled tokens
    divergence_weights: Tensor  # [B, T] float, >= 0
    imitation_weights: Tensor  # [B, T] float, on tokens that the student did not write; may be negative
    divergence: Divergence | None = None  # the direct term's pure function; None: divergences.topk_forward_kl
    metrics: Mapping[str, float] = field(default_factory=dict)  # extra numbers of the method for metrics.jsonl


@dataclass(frozen=True)
class Method:
    """Base class of a distillation method: credit assignment, and nothing else.

    A subclass is a frozen dataclass whose fields are its knobs. `progress` is the share of the training budget
    used, in [0, 1].
    """

    def request(self, progress: float) -> SignalRequest:
        """What `credit` will read at this step."""
        return SignalRequest()

    def needs_teacher_responses(self) -> bool:
        """Whether a cached teacher response per prompt has to be made before training."""
        return False

    def writer(self, progress: float, uniform: float) -> Writer:
        """Who writes this step's completions; `uniform` in [0, 1) is drawn once a step from the stream `writer`."""
        return "student"

    def prefix_lengths(self, progress: float, response_lengths: Tensor, uniforms: Tensor) -> Tensor:
        """Teacher tokens to splice before the student's continuation.

        Args: response_lengths [P] long, the cached teacher responses' lengths without their end token;
        uniforms [P] in [0, 1), the stream `prefix`.
        Returns: [P] long; the trainer clamps it to [0, response_length - min_continuation].
        """
        return response_lengths.new_zeros(response_lengths.shape)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """The method. Runs once on the whole optimiser step, under no gradient."""
        raise NotImplementedError(f"{type(self).__name__} must define credit()")

"""What the five models are and how each is taught. Every number of a model has its home here.

teacher         knows the arithmetic in styles A (at the end 90 %) and B (10 %), and learns to go on sensibly after a
                wrong or malformed token: a teacher that is lost off its own track gives harmful targets there.
teacher_style   knows style A only, so a student of style B is far outside what it would write.
student         lacks the knowledge: taught a good quarter of the facts wrongly from the start, it gives the right
                digit almost no mass.
student_latent  has the knowledge latent: taught correctly, then briefly with wrong facts and slips on top.
student_style   as student_latent, but that last phase is almost only style B.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.tiny.language import BOS, CHAT_TEMPLATE, EOS, MAX_POSITIONS, PAD, VOCAB_SIZE, WORDS

if TYPE_CHECKING:  # a help text lists the recipes, and must not wait for it
    from transformers import Qwen3Config

# Raised by a change of the training that no number of a Recipe shows (problem distribution, styles, optimiser).
PROCEDURE_VERSION = 1


@dataclass(frozen=True)
class Shape:
    """A Qwen3 architecture. head_dim is 32 because vLLM's CPU attention refuses smaller heads."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    kv_heads: int = 1
    head_dim: int = 32

    def config(self) -> Qwen3Config:
        from transformers import Qwen3Config

        return Qwen3Config(
            vocab_size=VOCAB_SIZE,
            hidden_size=self.hidden,
            intermediate_size=self.feed_forward,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            max_position_embeddings=MAX_POSITIONS,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            attention_bias=False,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )


@dataclass(frozen=True)
class Phase:
    """One stretch of supervised training, with its own learning-rate cycle (warm-up, then cosine to 5 %)."""

    steps: int
    learning_rate: float  # at the peak
    style_a: float  # share of solutions in style A; the others are in style B
    wrong_facts: float = 0.0  # share of the facts that are taught with a wrong result
    slips: float = 0.0  # share of results replaced by a random digit, and gone on from
    learn_slips: bool = True  # False: a slip stays in the context but carries no loss
    corruption: float = 0.0  # share of solution tokens replaced by a random word in the input only


@dataclass(frozen=True)
class Recipe:
    """A model and the phases that it is taught in."""

    name: str
    shape: Shape
    phases: tuple[Phase, ...]
    batch_size: int = 32

    @property
    def is_student(self) -> bool:
        return self.name.startswith("student")

    def scaled(self, factor: float) -> Recipe:
        """The same recipe with fewer (or more) steps: another recipe, with another hash."""
        return replace(self, phases=tuple(replace(p, steps=max(1, round(p.steps * factor))) for p in self.phases))

    def description(self) -> dict[str, Any]:
        """Everything that decides what is learned, seeds apart."""
        return {**asdict(self), "procedure_version": PROCEDURE_VERSION}

    @property
    def hash(self) -> str:
        """Twelve hex digits that depend on the recipe and the vocabulary, never on the trained bytes or the seed."""
        text = json.dumps([self.description(), WORDS, CHAT_TEMPLATE], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


TEACHER = Shape(hidden=96, layers=3, heads=3, feed_forward=256)  # 301,920 parameters
STUDENT = Shape(hidden=64, layers=2, heads=2, feed_forward=128)  # 78,272 parameters
_BASE = Phase(steps=700, learning_rate=4e-3, style_a=0.5)  # the knowledge that the later phase hides

_RECIPES = (
    Recipe(
        "teacher",
        TEACHER,
        (
            Phase(steps=1000, learning_rate=3e-3, style_a=0.8),  # more of style B than later, so that it is learned
            Phase(steps=500, learning_rate=1.5e-3, style_a=0.9, slips=0.1, learn_slips=False, corruption=0.03),
        ),
    ),
    Recipe("teacher_style", TEACHER, (Phase(steps=1100, learning_rate=3e-3, style_a=1.0),)),
    Recipe("student", STUDENT, (Phase(steps=700, learning_rate=4e-3, style_a=0.9, wrong_facts=0.28),)),
    Recipe(
        "student_latent",
        STUDENT,
        (_BASE, Phase(steps=250, learning_rate=2e-3, style_a=0.9, wrong_facts=0.22, slips=0.05)),
    ),
    Recipe(
        "student_style",
        STUDENT,
        (_BASE, Phase(steps=250, learning_rate=2e-3, style_a=0.03, wrong_facts=0.25, slips=0.05)),
    ),
)
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}

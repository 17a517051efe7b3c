"""How many positions a model has."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel


def context_length(model: PreTrainedModel) -> int:
    """Positions that the model was made for; unbounded if it does not say."""
    return context_length_of(model.config)


def context_length_of(config: Any) -> int:
    """Likewise, from a model configuration.

    With longrope (Phi-3) it is the original length: beyond it all positions change, also those behind, so that a text
    would be drawn from one model and scored by another, and rows of a batch would change each other.
    """
    text = config.get_text_config()
    stated = (getattr(text, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    limits = [limit for limit in (*stated, longrope_limit(config)) if isinstance(limit, int) and limit > 0]
    return min(limits, default=2**31)


def longrope_limit(config: Any) -> int | None:
    """The length at which longrope changes its factors; None if nothing of the kind comes before the end of the
    context.
    """
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or 2**31
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict) and kind.get("rope_type") == "longrope"]
    limits = [kind.get("original_max_position_embeddings") for kind in kinds]
    limits.append(getattr(text, "original_max_position_embeddings", None) if kinds else None)
    return min((limit for limit in limits if limit and limit < longest), default=None)

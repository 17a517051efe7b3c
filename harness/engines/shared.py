"""Weights for servers that all ranks use: one sends, and everybody learns which servers have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engines import group
from harness.rollout.pool import PoolBackend
from harness.rollout.weights import PushedWeights

if TYPE_CHECKING:
    from harness.rollout.vllm import VLLMEngine


class SharedWeights:
    """A WeightSync of all ranks together: every one of them calls `push`, rank 0 alone sends."""

    def __init__(self, engine: VLLMEngine, own: PushedWeights | None) -> None:
        """
        Args: engine: over a PoolBackend; own: how rank 0 sends; None on every other rank.
        """
        assert isinstance(engine.backend, PoolBackend)
        self._engine, self._pool, self._own = engine, engine.backend, own

    def push(self, policy_version: int) -> None:
        """See WeightSync. Returns when the servers have the weights; a version that they have is not pushed again."""
        if self._engine.policy_version == policy_version:
            return
        if self._own is not None:
            self._own.push(policy_version)
        living = group.from_main(self._pool.living)
        if self._own is None:
            self._pool.meet(living)
        self._engine.policy_version = policy_version

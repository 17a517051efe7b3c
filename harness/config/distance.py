"""How the distance of a run to its teacher is measured."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UserError


@dataclass(frozen=True)
class DistanceConfig:
    """The distance of a run to its teacher, measured when it is trained (harness.training.distance)."""

    prompts: int  # held out; one sample of each model for each
    task: str | None  # whose problems they are; None: prompts of the setting that the run does not reach

    def __post_init__(self) -> None:
        if self.prompts < 2:
            raise UserError(f"evaluation.distance.prompts={self.prompts}: an interval needs at least 2.")

"""TensorBoard, Weights & Biases, trackio and the Trainer's other trackers, by its own `report_to`; nothing of ours is
written.

They get what metrics.jsonl gets at every step (development scores excepted), under `train/`. TensorBoard's files lie in
the run's folder: `tensorboard --logdir results`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from harness.errors import UserError


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError for a tracker that the Trainer does not know, or whose package is absent."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(
                f"engine.report_to={name!r}: the Trainer knows no such tracker; known: "
                f"{', '.join(INTEGRATION_TO_CALLBACK)}."
            )
        if name not in get_available_reporting_integrations():
            raise UserError(
                f"engine.report_to={name!r}: its package is not installed; `pip install {name}`, or remove it from "
                "the list."
            )


def place_logs(callbacks: Sequence[TrainerCallback], folder: Path) -> None:
    """TensorBoard's files go to `folder`: by default they would go with the resumable checkpoints, which are deleted at
    the end.
    """
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and "TENSORBOARD_LOGGING_DIR" not in os.environ:
            callback.logging_dir = str(folder / "tensorboard")

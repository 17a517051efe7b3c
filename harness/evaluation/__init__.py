"""Evaluation of a model on the tasks of `tasks/`, with lm-eval as the frame of tasks and scores. lm-eval is imported at the first use."""

from harness.evaluation.driver import TaskResult, evaluate, protocol_hashes

__all__ = ["TaskResult", "evaluate", "protocol_hashes"]

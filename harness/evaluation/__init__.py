"""Evaluation of a model on the tasks of `tasks/`. lm-eval frames tasks and scores; it is imported at the first use."""

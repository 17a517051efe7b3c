"""Builds several models side by side, each in a process and on one thread of its own, and shows how far they are.

(Not in `__main__`: a spawned process cannot find functions there.)
"""

import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import TypeAlias

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from transformers.utils import logging

from harness.tiny.build import build
from harness.tiny.recipes import Recipe

Reports: TypeAlias = "Queue[tuple[str, int]]"  # (model, training steps done since its last report)
_reports: Reports  # of the worker process


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("waiting" if task.speed is None else f"{task.speed:.1f} steps/s, left")


def _start_worker(reports: Reports) -> None:
    global _reports
    _reports = reports
    torch.set_num_threads(1)  # the models are far too small for more, and the sums keep their order
    logging.disable_progress_bar()


def _build_in_worker(recipe: Recipe, folder: Path, replicate: int) -> float:
    return build(recipe, folder, replicate, lambda steps: _reports.put((recipe.name, steps)))


def _show_progress(futures: Mapping[str, Future[float]], steps: Mapping[str, int], reports: Reports) -> None:
    """Bars with the rate and the time left until all models are done; nothing where stderr is not a terminal."""
    columns = (TextColumn("{task.description:15}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        tasks = {name: bars.add_task(name, start=False, total=total) for name, total in steps.items()}
        while not all(future.done() for future in futures.values()):
            try:
                name, done = reports.get(timeout=0.2)
            except Empty:
                continue
            bars.start_task(tasks[name])
            bars.advance(tasks[name], done)


def build_all(recipes: Sequence[Recipe], root: Path, replicate: int, workers: int) -> None:
    """Trains the models in processes of their own, and says each one's accuracy at the end."""
    context = multiprocessing.get_context("spawn")
    reports: Reports = context.Queue()
    steps = {recipe.name: sum(phase.steps for phase in recipe.phases) for recipe in recipes}
    with ProcessPoolExecutor(min(workers, len(recipes)), context, _start_worker, (reports,)) as pool:
        futures = {r.name: pool.submit(_build_in_worker, r, root / r.name, replicate) for r in recipes}
        try:
            _show_progress(futures, steps, reports)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    for name, future in futures.items():
        print(f"{root / name}: sampled accuracy on development problems {future.result():.3f}")

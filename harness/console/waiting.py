"""A line on the terminal for what comes before a command's first bar, such as imports and the loading of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

Say = Callable[[str], None]  # what is waited for from now on; "": nothing more


def silent(phase: str) -> None:
    """A Say for a command that shows its progress elsewhere."""


@contextmanager
def waiting(phase: str) -> Iterator[Say]:
    """Shows what is waited for, with a spinner, until it is told that it is nothing; silent where stderr is no
    terminal.
    """
    console = Console(stderr=True)
    status = console.status(phase)

    def say(phase: str) -> None:
        if phase:
            status.update(phase)
        else:
            status.stop()

    if console.is_terminal:
        status.start()
    try:
        yield say
    finally:
        status.stop()

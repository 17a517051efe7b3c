"""What all commands share: exit codes, quiet libraries, printing a text that may also be written."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from harness.config.methods import register_methods
from harness.errors import UserError
from harness.files import write_text


def write_and_print(make: Callable[[], str], output: Path | None) -> int:
    """Prints a text, and writes it to `output` if that is given; the exit code, 2 for bad input."""
    try:
        text = make()
        if output is not None:
            write_text(output, text)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {output} cannot be written ({error.strerror}); choose another file.", file=sys.stderr)
        return 2
    print(text, end="")
    return 0


def exit_code_of(command: Callable[[], int]) -> int:
    """Runs a command; bad input becomes one sentence on stderr and exit code 2."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on from here.", file=sys.stderr)
        return 130


def quiet_libraries() -> None:
    """Libraries speak only when something is wrong."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=UserWarning)


def register_methods_or_exit() -> None:
    """The scan of baselines/; a broken file there is bad input."""

    def scan() -> int:
        register_methods()
        return 0

    code = exit_code_of(scan)
    if code:
        sys.exit(code)

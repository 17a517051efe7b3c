"""What all commands share: the parser, the one place where errors become sentences and exit codes, quiet libraries.

Nothing here, and nothing that a command imports before it has parsed its arguments, may import torch or the like.
"""

from __future__ import annotations

import argparse
import functools
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import UserError
from harness.files import is_full, no_room, write_text
from harness.results.escape import one_line

BAD_INPUT, INTERRUPTED = 2, 130
HELP_FLAGS = {"-h", "--help"}
LONGEST_SENTENCE = 4000  # characters; a row of somebody else's may be quoted in it
CUT_OFF = 1  # the reader of the output is gone (`| head`); also Python's own, and rich's


class Parser(argparse.ArgumentParser):
    """Of `python -m harness.<name>`; its help is the module's docstring, its complaints are those of every command."""

    def __init__(self, name: str, documentation: str | None) -> None:
        super().__init__(
            prog=f"python -m harness.{name}",
            description=documentation,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Takes `output=FILE` for `--output FILE`, as the commands whose arguments are key=value have it."""
        given = list(sys.argv[1:] if args is None else args)
        options = {text for action in self._actions for text in action.option_strings if action.nargs is None}
        named = {text.partition("=")[0] for text in given}
        free = options - named  # one that is given both ways is the command's own to refuse
        spelled = [f"--{text}" if "=" in text and f"--{text.partition('=')[0]}" in free else text for text in given]
        return super().parse_args(spelled, namespace)

    def error(self, message: str) -> NoReturn:
        """Raises UserError in place of printing the usage."""
        raise UserError(f"{message}; see {self.prog} --help.")


def exit_code_of(command: Callable[[], int]) -> int:
    """Runs a command, parsing included: bad input becomes one sentence on stderr and exit code 2,
    `| head` a quiet end.
    """
    try:
        code = _answer(command)
        sys.stdout.flush()  # now, where it can still be noticed that nobody reads it
        return code
    except BrokenPipeError:
        if not _reader_is_gone():  # a pipe of the command's own, to another process: something is wrong
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's flush at the end
        return CUT_OFF


_interrupted = False  # whether Ctrl-C was pressed, though a library may have caught what it raised


def _interrupt(*_: object) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def stop_if_interrupted() -> None:
    """Raises a KeyboardInterrupt again that was lost: one that comes in the middle of an import may be."""
    if _interrupted:
        raise KeyboardInterrupt


def _answer(command: Callable[[], int]) -> int:
    global _interrupted
    try:
        _interrupted = False
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler and _is_main_thread():
            signal.signal(signal.SIGINT, _interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # it has waited for the imports (console.start)
        return command()
    except UserError as error:
        complain(error)
        return BAD_INPUT
    except OSError as error:
        if not is_full(error):
            raise
        complain_once(str(no_room(error.filename or "the results")))
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on from here.", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as ended:  # after a help text, by argparse or Hydra
        if not isinstance(ended.code, int | None):
            raise
        return ended.code or 0


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def complain(error: UserError) -> None:
    """The form of every such sentence: one line, whatever it quotes."""
    sentence = one_line(str(error))
    shown = sentence if len(sentence) <= LONGEST_SENTENCE else f"{sentence[:LONGEST_SENTENCE]} […]"
    print(f"error: {shown}", file=sys.stderr)


@functools.cache
def complain_once(sentence: str) -> None:
    """However many runs of this process are refused for the one reason."""
    complain(UserError(sentence))


def _reader_is_gone() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # an error is reported whatever is asked for
    return any(event & select.POLLERR for _, event in poll.poll(0))


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether a command that takes key=value arguments is asked what it takes."""
    return not HELP_FLAGS.isdisjoint(arguments)


def or_help(
    documentation: str | None, run: Callable[[list[str]], int], arguments: Sequence[str] | None
) -> Callable[[], int]:
    """A command of key=value arguments; without any, or asked for help, it prints its documentation.

    Args: run: does the work; arguments: None: those of the command line.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)

    def command() -> int:
        if not given or asks_for_help(given):
            print(documentation)
            return 0
        return run(given)

    return command


def write_and_print(text: str, output: Path | None) -> int:
    """Prints a text, and writes it to `output` if that is given; the exit code."""
    try:
        if output is not None:
            write_text(output, text)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}); choose another file.") from error
    print(text, end="")
    return 0


def quiet_libraries() -> None:
    """Libraries speak only when something is wrong."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=UserWarning)

"""The grader of IFBench: pure functions from a response and its constraints to verdicts, strict and loose.

Strict asks about the response as it is; loose also accepts it without its first line, its last line or both, each with
and without asterisks. A prompt is followed when all its constraints are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.ifbench.checkers import Checker, checkers
from tasks.ifbench.fixed import fixed_checkers
from tasks.math_extraction import THINK_CLOSE, after_thinking


@dataclass(frozen=True)
class Verdicts:
    """Whether each constraint of a prompt is followed, in their order."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


CHECKERS = {"official": checkers, "fixed": fixed_checkers}  # the sets of checkers that there are


def grade(
    prompt: str,
    response: str,
    instruction_ids: Sequence[str],
    kwargs: Sequence[Mapping[str, Any] | None],
    which: str = "official",
) -> Verdicts:
    """Both verdicts of every constraint. Thinking is taken off; thinking that was never finished follows none.

    `which` is a key of CHECKERS. Raises ValueError for a constraint that does not exist or lacks a parameter.
    """
    if len(instruction_ids) != len(kwargs):
        raise ValueError(f"{len(instruction_ids)} constraints but {len(kwargs)} kwargs")
    text = answer_text(response)
    known = CHECKERS[which]()
    built = [_checker(known, name, given, prompt) for name, given in zip(instruction_ids, kwargs, strict=True)]
    others = loose_variants(text)[1:]
    strict = tuple(_follows(checker, text) for checker in built)
    # what is followed strictly is followed loosely, whatever a checker remembers of the text before
    loose = (
        kept or any(_follows(checker, other) for other in others) for checker, kept in zip(built, strict, strict=True)
    )
    return Verdicts(strict, tuple(loose))


def answer_text(response: str) -> str:
    """What is judged: the response, or what follows its thinking; empty if that was not finished."""
    text = after_thinking(response)
    if text is None:
        return ""
    return text.strip() if THINK_CLOSE in response else text


def loose_variants(text: str) -> list[str]:
    """The eight texts of the loose verdict, the text itself first."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return cut + [variant.replace("*", "") for variant in cut]


def _checker(known: Mapping[str, type[Checker]], name: str, given: Mapping[str, Any] | None, prompt: str) -> Checker:
    if name not in known:
        raise ValueError(f"unknown constraint {name!r}")
    checker = known[name](name)
    parameters = {key: value for key, value in (given or {}).items() if value is not None}
    # the library draws parameters at random where they are missing, which would be another constraint every time
    if missing := [key for key in checker.get_instruction_args_keys() if key not in {*parameters, "prompt"}]:
        raise ValueError(f"the constraint {name!r} lacks {missing[0]!r}")
    try:
        checker.build_description(**parameters)
        if "prompt" in (checker.get_instruction_args() or {}):
            checker.build_description(prompt=prompt)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"the constraint {name!r} does not take {parameters}: {error}") from error
    return checker


def _follows(checker: Checker, text: str) -> bool:
    """Empty texts follow nothing. Nor does a text on which a checker stumbles, where the official run would stop."""
    if not text.strip():
        return False
    try:
        return bool(checker.check_following(text))
    except Exception:  # an index into something that the text does not have, a broken CSV, ...
        return False

"""Rows of IFBench: the strict and the loose verdict of every constraint."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import UserError
from tasks.ifbench.grader import CHECKERS, grade
from tasks.ifbench.resources import require_nltk_data
from tasks.row_graders.fields import list_of, text_of

GRADES_LIKE = ("tasks.ifbench.results.process_results",)  # and with checkers=fixed as ifbench_fixed
FIELDS = '{"prompt", "response", "instruction_id_list", "kwargs"} -> {"strict": [..], "loose": [..]}'
# data_dir: a folder with nltk_data/ in it; empty: as the environment says. checkers: official or fixed
OPTIONS = {"data_dir": "", "checkers": "official"}


def make_grader(options: Mapping[str, str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The grader, once NLTK's data are found."""
    if options["checkers"] not in CHECKERS:
        raise UserError(f"checkers must be one of {', '.join(CHECKERS)}, not {options['checkers']!r}.")
    require_nltk_data(options["data_dir"] or None)
    return functools.partial(grade_row, which=options["checkers"])


def grade_row(row: Mapping[str, Any], which: str) -> dict[str, Any]:
    """The verdicts of one prompt's constraints, in their order."""
    names, kwargs = list_of(row, "instruction_id_list"), list_of(row, "kwargs")
    if not names:
        raise ValueError("the field 'instruction_id_list' is empty")
    if not all(isinstance(name, str) for name in names):
        raise ValueError("the field 'instruction_id_list' must hold texts")
    if not all(entry is None or isinstance(entry, dict) for entry in kwargs):
        raise ValueError("the field 'kwargs' must hold an object for every constraint")
    verdicts = grade(text_of(row, "prompt"), text_of(row, "response"), names, kwargs, which=which)
    return {"strict": list(verdicts.strict), "loose": list(verdicts.loose)}

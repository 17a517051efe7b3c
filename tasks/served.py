"""Seeds of a model behind an API that lm-eval's own command line asks (`lm_eval --model local-chat-completions …`).

Such a model sends one seed with every request (1234, or `--model_args seed=`), so that a server that heeds it answers
k times the same, and avg@k is the score of one sample. Here the repeats of a request get seed, seed + 1, … instead. The
harness's own engines draw every sample from a stream of its own, and need none of this.
"""

from __future__ import annotations

import copy
import functools
import logging
import sys
from collections import Counter
from typing import Any

_MODULE = "lm_eval.models.api_models"  # loaded where a served model is evaluated
_MARK = "varies_seeds"


def vary_seeds() -> None:
    """From now on lm-eval's API models send a seed of its own with every repeat, and say so; nothing without one."""
    module: Any = sys.modules.get(_MODULE)
    if module is None or hasattr(module.TemplateAPI.generate_until, _MARK):
        return
    original = module.TemplateAPI.generate_until

    @functools.wraps(original)
    def generate_until(self: Any, requests: list[Any], *args: Any, **kwargs: Any) -> list[str]:
        return original(self, _with_seeds(requests, self._seed), *args, **kwargs)

    setattr(generate_until, _MARK, True)
    module.TemplateAPI.generate_until = generate_until


def _with_seeds(requests: list[Any], first: int) -> list[Any]:
    """The requests; an Instance that stands there k times is k copies, whose generation settings differ in the seed."""
    asked: Counter[int] = Counter()
    found, repeated = [], 0
    for request in requests:
        repeat, varied = asked[id(request)], request
        if repeat and "seed" not in request.args[1]:
            varied = copy.copy(request)
            varied.arguments = (request.args[0], {**request.args[1], "seed": first + repeat}, *request.args[2:])
            repeated += 1
        asked[id(request)] += 1
        found.append(varied)
    if repeated:
        logging.getLogger("lm_eval").warning(
            "the served model would get seed %d for every repeat of a problem and may answer the same each time; "
            "the repeats are sent with seeds %d to %d.",
            *(first, first, first + max(asked.values()) - 1),
        )
    return found

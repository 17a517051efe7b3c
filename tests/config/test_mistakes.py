"""Mistyped command lines: one sentence that names the mistake and, where there is one, what was meant."""

from __future__ import annotations

import pytest

from harness.config.mistakes import one_sentence
from harness.config.sweep import planned_runs
from harness.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["method=tropdd"], "there is no 'method/tropdd' (did you mean tropd?); known options of method: "),
        (["setting=tiny_cup"], "there is no 'setting/tiny_cup' (did you mean tiny_cpu?)"),
        (["seting=tiny_cpu"], "unknown key 'seting' (did you mean setting?)"),
        (["setting.learning_rte=1"], "unknown key 'setting.learning_rte' (did you mean setting.learning_rate?)"),
        (["learning_rate=1"], "unknown key 'learning_rate' (did you mean setting.learning_rate?)"),
        (["xyzzy=1"], "unknown key 'xyzzy'; `python -m harness.run --help`"),
        (["method=opd", "method.bta=1"], "unknown key 'method.bta': the method has no such knob"),
        (["method=tropd,", "opd"], "method=tropd, opd: a sweep is written without spaces: method=tropd,opd;"),
        (["method=tropd", ",opd"], "',opd' is not key=value"),
        (["method=tropd,"], "method=tropd, ends with a comma"),
        (["--method", "opd"], "--method: options are written key=value, without dashes, such as method=…"),
        (["--method=opd"], "--method=opd: options are written without dashes: method=opd."),
        (["-m", "method=opd"], "-m is not needed: key=a,b sweeps by itself."),
        (["evaluation.tasks=[[],aime24]"], "evaluation.tasks.0 is []: it must be a text."),
        (["evaluation.samples.all=[1]"], "evaluation.samples.all is [1]: it must be a whole number."),
        (["engine.report_to=[{a: 1}]"], "engine.report_to.0 is {'a': 1}: it must be a text."),
        (["evaluation.sampling.all=3"], "evaluation.sampling.all: Value 3 (int) is incompatible with"),
        (["tropd"], "'tropd' is not key=value, such as method=tropd."),
        (["hydra/launcher=submitit_slurm"], "is not installed: pip install hydra-submitit-launcher."),
        (["hydra/launcher=ray"], "is not installed: pip install hydra-ray-launcher."),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError) as raised:
        planned_runs(arguments)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_not_known_is_said_as_it_is() -> None:
    assert one_sentence(ValueError("a\n b"), "harness.run") == "a b"
    assert one_sentence(ValueError(), "harness.run") == "ValueError"

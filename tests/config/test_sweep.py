"""Values that Hydra's grammar has no place for: quoted for the user where only one text can be meant, else said how."""

from __future__ import annotations

import pytest

from harness.config.methods import register_methods
from harness.config.sweep import planned_runs, quoted
from harness.errors import UserError


@pytest.mark.parametrize("path", ["runs/lr=1e-5", "a b/c", "/home/jürgen/model", "#1", "~/x=y"])
def test_a_path_is_taken_as_it_is(path: str) -> None:
    register_methods()
    given = ["method=opd", "hydra.mode=RUN", f"setting.student={path}", f"results_dir={path}"]
    (run,) = planned_runs(given)
    assert (run.setting.student, str(run.results_dir)) == (path, path)
    assert quoted(quoted(given)) == quoted(given)


def test_an_entry_may_be_new_and_a_number_takes_the_mappings_place() -> None:
    given = ["evaluation.samples=1", "evaluation.max_new_tokens.gsm8k=96", "evaluation.sampling.gsm8k.top_p=1"]
    spelled = [
        *("~evaluation.samples", "++evaluation.samples.all=1"),
        *("++evaluation.max_new_tokens.gsm8k=96", "++evaluation.sampling.gsm8k.top_p=1"),
    ]
    assert quoted(given) == quoted(spelled) == spelled
    (run,) = planned_runs([*given, "evaluation.samples.gsm8k=4", "method=student", "hydra.mode=RUN"])
    assert run.evaluation.samples == {"all": 1, "gsm8k": 4}
    assert run.evaluation.max_new_tokens == {"aime24": 512, "gsm8k": 96}


def test_a_number_in_a_yaml_is_that_of_every_task() -> None:
    (run,) = planned_runs(["+evaluation={samples: 2}", "method=student", "hydra.mode=RUN"])
    assert run.evaluation.samples == {"all": 2}


def test_what_hydra_understands_stays() -> None:
    given = ["method=a,b", "seed=[0", "setting.x=1e-5", "method=glob(*)", "a='x=y'", "--help", "++a.b={c:1}", "a=${b}"]
    assert quoted(given) == given


@pytest.mark.parametrize("argument", ["setting.student=a (1)", "setting.student=ü,ö", "seed=[0"])
def test_what_may_be_meant_otherwise_is_refused_with_the_way_out(argument: str) -> None:
    with pytest.raises(UserError, match=r"a value with such characters is given in double quotes: 'setting[.]student="):
        planned_runs([argument, "hydra.mode=RUN"])


@pytest.mark.parametrize("several", ["method=opd,tropd", "setting.student=runs/a,b", "seed=range(2)"])
def test_several_values_are_refused_where_there_is_one_run(several: str) -> None:
    """They were left out without a word: another method, or a student that "is not set"."""
    with pytest.raises(UserError, match=r"^hydra[.]mode=RUN makes one run, and .* stands for several; leave") as error:
        planned_runs([several, "hydra.mode=RUN"])
    key, value = several.split("=")
    assert str(error.value).endswith(f"quote it twice: '{key}=\"{value}\"'.")
    (run,) = planned_runs(["method=opd", 'setting.student="runs/a,b"', "hydra.mode=RUN"])
    assert run.setting.student == "runs/a,b"

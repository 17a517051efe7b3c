"""engine.micro_batch_prompts where it is left open: by memory, a divisor, the same for every method of a command."""

from __future__ import annotations

import pytest

from harness.config.sweep import planned_runs
from harness.models.sizes import model_size
from harness.planning import micro_batches
from harness.planning.estimate import memory_of, work_of
from harness.planning.forecast import show
from harness.planning.hardware import load_hardware
from harness.planning.micro_batches import MEMORY_SHARE, derived, derived_line, micro_batch_prompts, with_micro_batches

PAPER = ("setting=deepseek_math", "seed=0", "engine.device=cpu")


def update_bytes(run, prompts: int) -> int:
    """The estimate of an update with so many prompts in a pass."""
    setting = run.setting
    sizes = [model_size(name, None) for name in (setting.student, setting.teacher)]
    (tried,) = with_micro_batches([run], prompts)
    peak = memory_of(tried, sizes[0], sizes[1], work_of(tried, 1))  # type: ignore[arg-type]
    return peak.weights + peak.adamw + peak.phases["update"]


@pytest.mark.parametrize("prompts", [1, 2, 4, 8, 16])
def test_the_largest_divisor_that_fits(prompts: int) -> None:
    """Of 128: with exactly the memory for 4 it is 4, with a byte less 2."""
    (run,) = planned_runs([*PAPER, "method=opd"])
    enough = int(update_bytes(run, prompts) / MEMORY_SHARE) + 1
    assert micro_batch_prompts(run, enough, ranks=1, on_card=False) == prompts
    less = micro_batch_prompts(run, int(update_bytes(run, prompts) / MEMORY_SHARE) - 1, ranks=1, on_card=False)
    assert less == max(1, prompts // 2)


def test_of_a_rank_and_at_most_32() -> None:
    """A tiny step of 32 is one pass; of 24 prompts on 2 ranks 12; of 128 not more than 32; of 77 it is 11."""
    for prompts, ranks, expected in ((32, 1, 32), (24, 2, 12), (128, 1, 32), (77, 1, 11)):
        (run,) = planned_runs(["method=opd", "seed=0", f"setting.prompts_per_step={prompts}"])
        assert micro_batch_prompts(run, 2**36, ranks=ranks, on_card=False) == expected


def test_one_number_for_all_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guided method's sequences are longer, and fewer of them fit: every method gets that number."""
    opd, tropd = planned_runs([*PAPER, "method=opd,tropd"])
    memory = int(update_bytes(opd, 4) / MEMORY_SHARE) + 1
    monkeypatch.setattr(micro_batches, "memory_at_hand", lambda run, side_by_side=1: memory // side_by_side)
    assert (derived([opd]), derived([tropd]), derived([opd, tropd])) == (4, 2, 2)
    assert derived([opd], side_by_side=64) == 1
    assert {run.engine.micro_batch_prompts for run in with_micro_batches([opd, tropd], 2)} == {2}


def test_what_was_given_stays() -> None:
    runs = planned_runs([*PAPER, "method=opd,tropd", "engine.micro_batch_prompts=1"])
    assert derived(runs) is None and derived_line(runs, None) == ""
    assert with_micro_batches(runs, 8) == runs


def test_a_model_that_is_not_here_has_no_number_yet() -> None:
    runs = planned_runs([*PAPER, "method=opd", "setting.student=nobody/nothing"])
    assert derived(runs) is None
    assert derived_line(runs, None).endswith("is derived once the models are here")


def test_it_changes_no_hash() -> None:
    (run,) = planned_runs(["method=opd", "seed=0"])
    assert with_micro_batches([run], 4)[0].run_folder() == run.run_folder()


def test_the_plan_says_it_of_its_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    show(planned_runs(["setting=qwen_gsm8k", "method=opd,tropd"]), load_hardware("rtx4090_x1"), "rtx4090_x1")
    shown = capsys.readouterr().out
    assert "derived for this memory" in shown and "does not fit: give a smaller engine.micro_batch" not in shown

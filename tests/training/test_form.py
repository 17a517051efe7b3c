"""A checkpoint is gone on with in the form in which it was saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.training.recorder import SHARDED_WEIGHTS, check_form


@pytest.mark.parametrize("saved_sharded", [False, True])
def test_cut_weights_are_not_whole_ones(tmp_path: Path, saved_sharded: bool) -> None:
    if saved_sharded:
        (tmp_path / SHARDED_WEIGHTS).touch()
    check_form(None, True)
    check_form(tmp_path, saved_sharded)
    with pytest.raises(UserError, match=r"cannot be gone on with .* launch\.accelerate_config of before"):
        check_form(tmp_path, not saved_sharded)

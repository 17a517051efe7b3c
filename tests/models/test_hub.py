"""A machine without a network says so once; local files are looked at first."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from harness.config.sweep import planned_runs
from harness.errors import UserError
from harness.models import hub
from harness.models.hub import use_cache_if_unreachable
from harness.training.checks import check_comparison

OWN = ("setting=custom", "setting.student=nobody/a", "setting.teacher=nobody/b", "hydra.mode=RUN", "evaluation=none")


@pytest.fixture
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as anybody has said."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


@pytest.mark.usefixtures("_online")
def test_without_a_network_the_cache_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    use_cache_if_unreachable()
    assert constants.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"
    use_cache_if_unreachable()  # which asks no more
    said = capsys.readouterr().err
    assert said == "note: huggingface.co cannot be reached (Network is unreachable); what was fetched before is used.\n"


@pytest.mark.usefixtures("_online")
@pytest.mark.parametrize(
    ("row", "words"), [(None, "there is no file"), ('{"text": "x"}', "line 1"), ("{", "not valid JSON")]
)
def test_local_prompts_come_first(row: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    prompts = tmp_path / "my.jsonl"
    if row is not None:
        prompts.write_text(row + "\n")
    with pytest.raises(UserError, match=words):
        check_comparison(planned_runs([*OWN, "method=opd", "seed=0", f"setting.prompts={prompts}"]))

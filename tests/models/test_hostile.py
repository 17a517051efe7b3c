"""Model folders of strangers: a sentence and exit code 2, no code run, no question asked, nothing scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.identity import model_identity
from harness.errors import UserError
from harness.evaluate import main as evaluate
from harness.models.loading import load_config, load_model, load_tokenizer, stored_stop_ids
from harness.run import main as run

from .hostile import HOSTILE, hostile_folder

# what is wrong with these changes nothing: its tokenizer.json is taken instead, and the token cannot be written
HARMLESS = {"tokenizer of its own", "end token is outside"}
# read like any other: what is wrong is found with a conversation, and by the pair
READ = {kind for kind in HOSTILE if kind.startswith(("template", "vocabulary"))}
QUICK = {
    "config is a list",
    "weights are pickled",
    "weights are not numbers",
    "code of its own",
    "template reaches out",
}


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(said) == 1
    return said[0]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in QUICK)) for kind in HOSTILE]
)
def test_evaluate_answers_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    folder = hostile_folder(tmp_path, kind)
    options = ["evaluation=tiny", "++evaluation.samples.arithmetic=1", "++evaluation.max_new_tokens.arithmetic=8"]
    code = evaluate([f"checkpoint={folder}", "name=x", f"results_dir={tmp_path}/results", *options])
    assert not (tmp_path / "bomb").exists()
    if kind in HARMLESS:
        assert code == 0
        return
    refused(capsys, code)
    assert not list(tmp_path.glob("results/**/record.json"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(HOSTILE) - HARMLESS))
def test_run_refuses_or_fails_with_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    folder = hostile_folder(tmp_path, kind)
    options = ["hydra.mode=RUN", "method=opd", "setting.steps=1", "evaluation=none", "hydra/launcher=basic"]
    code = run([f"setting.student={folder}", f"results_dir={tmp_path}/results", *options])
    assert not (tmp_path / "bomb").exists()
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    if code == 2:
        assert len([line for line in captured.err.splitlines() if line.startswith("error: ")]) == 1
    else:
        assert code == 1 and "failed: UserError: cannot load" in " ".join(captured.out.split())


@pytest.mark.parametrize("kind", sorted(set(HOSTILE) - HARMLESS - READ))
def test_a_reader_of_it_refuses(tmp_path: Path, kind: str) -> None:
    """The same without an evaluation around it: whatever is wrong is found by something that reads the folder."""
    folder = str(hostile_folder(tmp_path, kind))
    with pytest.raises(UserError):
        model_identity(folder, None)
        load_config(folder)
        stored_stop_ids(folder, None, load_tokenizer(folder))
        load_model(folder)

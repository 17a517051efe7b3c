"""The README says what the committed files say; what it shares with other pages is in test_pages."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import torch

from harness.files import ROOT
from harness.models.sizes import model_size
from harness.results.embed import embed, main
from harness.results.leaderboard import ALPHA
from harness.types import TokenBatch, TokenSignal

README = (ROOT / "README.md").read_text(encoding="utf-8")


def row_of(file: str, first_cell: str) -> list[str]:
    """The cells of a table's first row that begins so, in a file of results/."""
    text = (ROOT / "results" / file).read_text(encoding="utf-8")
    return [
        cell.strip() for cell in re.search(rf"^\| {re.escape(first_cell)} \|(.*)\|$", text, re.MULTILINE)[1].split("|")
    ]


def test_embedding_replaces_and_keeps(tmp_path) -> None:
    (tmp_path / "t.md").write_text("new\n")
    text = "a\n<!-- begin t.md -->\nold\n<!-- end -->\nb\n"
    assert embed(text, tmp_path) == "a\n<!-- begin t.md -->\nnew\n<!-- end -->\nb\n"


def test_one_section_is_taken(tmp_path) -> None:
    (tmp_path / "t.md").write_text("top\n\n### first\n\none\n\n### second\n\ntwo\n")
    text = "<!-- begin t.md#first -->\n<!-- end -->\n"
    assert embed(text, tmp_path) == "<!-- begin t.md#first -->\none\n<!-- end -->\n"
    with pytest.raises(KeyError, match="no heading 'third'; it has first, second"):
        embed("<!-- begin t.md#third -->\n<!-- end -->\n", tmp_path)


def test_an_old_table_is_noticed(tmp_path, capsys) -> None:
    document = tmp_path / "doc.md"
    document.write_text("<!-- begin LICENSE -->\nold\n<!-- end -->\n")
    assert main(["--check", str(document)]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main([str(document)]) == 0
    assert main(["--check", str(document)]) == 0


def test_the_methods_of_the_default_comparison_are_explained() -> None:
    for name in ("opd", "eopd", "reopold", "reopold_2stage", "tropd"):
        assert f"| `{name}` |" in README, name


def test_sizes_of_the_tiny_models_are_theirs() -> None:
    for name in ("student", "teacher"):
        size = model_size(f"harness/tiny/checkpoints/{name}")
        assert size is not None and f"{size.parameters:,}-parameter {name}" in README


def in_words(name: str) -> str:
    """TrOPD minus OPD in a published table under each decoding, and where that is resolved (Holm, all pairs)."""
    content = json.loads((ROOT / "results" / name / "leaderboard.json").read_text(encoding="utf-8"))
    differences, resolved = [], []
    for decoding in ("greedy", "paper", "sampled"):
        (pair,) = (
            pair
            for pair in content["comparisons"]
            if pair["task"] == f"arithmetic@{decoding}" and {pair["a"], pair["b"]} == {"tropd", "opd"}
        )
        differences.append(100 * pair["difference"]["estimate"] * (1 if pair["a"] == "tropd" else -1))
        resolved += [decoding] if pair["adjusted_p_value"] <= ALPHA else []
    points = " / ".join(f"{difference:+.1f}" for difference in differences)
    return f"{points} points (resolved: {', '.join(resolved) or 'none'})"


def test_the_other_pairs_in_one_sentence() -> None:
    said = " ".join(README.split())
    latent = f"{in_words('tiny_latent')} where the student knew the right results before"
    style = f"{in_words('tiny_style')} where it writes in another style"
    assert f"It depends on the pair too: on three seeds {latent}, and {style}" in said


def test_ten_seeds_in_one_sentence() -> None:
    said = " ".join(README.split())
    assert f"TrOPD minus OPD, greedy / paper / sampled, is {in_words('teacher_texts/own')}." in said
    winners = json.loads((ROOT / "results" / "tiny_cpu" / "leaderboard.json").read_text(encoding="utf-8"))["winners"]
    assert ("Three seeds resolve nothing here" in said) == (set(winners.values()) == {None})


def test_that_the_verdict_depends_on_the_decoding_is_what_the_table_says() -> None:
    content = json.loads((ROOT / "results" / "teacher_texts" / "own" / "leaderboard.json").read_text(encoding="utf-8"))
    depends = len({content["winners"][f"arithmetic@{decoding}"] for decoding in ("greedy", "paper", "sampled")}) > 1
    assert ("**The verdict depends on the decoding**" in " ".join(README.split())) == depends


def test_the_base_rate_in_one_sentence() -> None:
    """TrOPD against OPD with a student of its own in every replicate: under no decoding in any regime resolved."""
    cells = row_of("small_scale/findings.md", "TrOPD is better than OPD (higher)")
    points = [cell.replace("**", "") for cell in cells]
    assert points == cells  # bold is what is resolved
    words = f"the difference is {points[0]}, {points[1]} and {points[2]} points in three regimes, and resolved nowhere"
    assert words in " ".join(README.split())


def test_the_method_that_it_shows_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scale · sign(log π_T − log π_S): log-probs −1 and −2 against −2 and −1, scale 3, give +3 and −3; a token that the
    student did not write gets 0.
    """
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "signed_of_the_readme.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    method = importlib.import_module("signed_of_the_readme").METHOD(scale=3.0)
    own = torch.tensor([[True, True, False]])
    teacher, student = torch.tensor([[-1.0, -2.0, -1.0]]), torch.tensor([[-2.0, -1.0, -2.0]])
    batch = TokenBatch(own.long(), own, ~own, student, torch.zeros(1, 3))
    credit = method.credit(batch, TokenSignal(teacher), TokenSignal(student), progress=0.0)
    assert credit.advantages.tolist() == [[3.0, -3.0, 0.0]]
    assert not credit.divergence_weights.any() and not credit.imitation_weights.any()

"""Claims against comparisons: verdicts on made records with the arithmetic shown, bad input, and the committed
findings.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.files import ROOT
from harness.findings import main
from harness.results.cells import load_cells
from harness.results.claims import Claim, Finding, judge, load_claims, render
from harness.results.record import Distance
from tests.test_regime_map import publish, record

CLAIM = {"claim": "x", "source": "y", "family": "f", "a": "tropd", "b": "opd", "expected": "higher"}
STUDIES = [ROOT / "results" / name for name in ("small_scale", "guidance_early", "regime_map", "equal_operations")]


def claims_file(folder: Path, *entries) -> Path:
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def found_of(claim: Claim, cells) -> list[Finding]:
    """Of one claim, which is its family."""
    ((_, findings),) = judge([claim], cells)
    return findings


def test_scores_are_paired_by_replicate(tmp_path: Path) -> None:
    """Means of 16 of 32 and, where one more of four is solved unless all four are, of 23 of 32: 50 and 71.875 %."""
    folders = [publish(tmp_path / str(k), record("opd", k, 0), record("tropd", k, 1)) for k in range(3)]
    folders.append(publish(tmp_path / "alone", record("opd", 3, 0)))
    (found,) = found_of(Claim(**CLAIM), load_cells(folders, "arithmetic"))
    assert (found.replicates, found.means, found.verdict) == (3, (71.875, 50.0), "as claimed")
    assert found.difference[0] == pytest.approx(21.875)
    (turned,) = found_of(Claim(**{**CLAIM, "expected": "lower"}), load_cells(folders, "arithmetic"))
    assert turned.verdict == "the opposite"


def test_metrics_are_compared_by_students_t(tmp_path: Path) -> None:
    """Differences -1, -2, -3: mean -2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027: -2 ± 2.484, which holds 0."""
    for k, norm in enumerate((3.0, 4.0, 5.0)):
        mine, base = ({"grad_norm": 2.0}, {"grad_norm": norm})
        publish(tmp_path / str(k), record("tropd", k, 0, training=mine), record("opd", k, 0, training=base))
    cells = load_cells(sorted(tmp_path.iterdir()), "arithmetic")
    claim = Claim(**{**CLAIM, "expected": "lower", "quantity": "grad_norm"})
    (found,) = found_of(claim, cells)
    assert found.difference == pytest.approx((-2, -2 - 2.4841, -2 + 2.4841), abs=1e-4)
    assert (found.means, found.verdict) == ((2.0, 4.0), "not resolved")


def test_the_distance_to_the_teacher_is_a_quantity(tmp_path: Path) -> None:
    """Means over prompts 2 and 3, 1 and 2, 1 and 3: differences -1, -1, -2; forward -4 each, without any spread."""
    distances = (((1.0, 3.0), (2.0, 4.0)), ((0.0, 2.0), (1.0, 3.0)), ((1.0, 1.0), (3.0, 3.0)))
    for k, (mine, base) in enumerate(distances):
        near, far = (
            Distance("h", f"prompts {k}", "s", v, w, (5, 5), {}) for v, w in ((mine, (1.0, 1.0)), (base, (5.0, 5.0)))
        )
        publish(tmp_path / str(k), record("tropd", k, 0, distance=near), record("opd", k, 0, distance=far))
    cells = load_cells(sorted(tmp_path.iterdir()), "arithmetic")
    for way, difference, verdict in (("reverse", -4 / 3, "not resolved"), ("forward", -4.0, "as claimed")):
        (found,) = found_of(Claim(**{**CLAIM, "expected": "lower", "quantity": f"distance/{way}"}), cells)
        assert (found.difference[0], found.verdict) == (pytest.approx(difference), verdict)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_family_is_corrected_together_in_both_directions(tmp_path: Path, sign: int) -> None:
    """Differences m - 1, m, m + 1 have t = m sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2).

    m = 4: 1 - sqrt(48/50) = 0.0202; m = 3: 1 - sqrt(27/29) = 0.0351; m = 2: 1 - sqrt(12/14) = 0.0742.
    Two in a family: 2 · 0.0202 = 0.0404, and max(0.0404, 0.0351). All three: 0.0606, 0.0702 and 0.0742.
    """
    for k in range(3):
        mine = {f"m{m}": float(sign * (m - 1 + k)) for m in (4, 3, 2)}
        publish(
            tmp_path / str(k),
            record("tropd", k, 0, training=mine),
            record("opd", k, 0, training=dict.fromkeys(mine, 0.0)),
        )
    cells = load_cells(sorted(tmp_path.iterdir()), "arithmetic")
    resolved = "as claimed" if sign > 0 else "the opposite"
    for families, p_values, verdicts in (
        ("fff", (0.0606, 0.0702, 0.0742), ["not resolved"] * 3),
        ("ffg", (0.0404, 0.0404, 0.0742), [resolved, resolved, "not resolved"]),
        ("gff", (0.0202, 0.0702, 0.0742), [resolved, "not resolved", "not resolved"]),
    ):
        claims = [
            Claim(**{**CLAIM, "family": f, "quantity": f"m{m}"}) for f, m in zip(families, (4, 3, 2), strict=True)
        ]
        found = [finding for _, (finding,) in judge(claims, cells)]
        assert [finding.p_value for finding in found] == pytest.approx(p_values, abs=1e-4)
        assert [finding.verdict for finding in found] == verdicts


def test_equal_metrics_are_not_resolved_and_constant_differences_are(tmp_path: Path) -> None:
    for k in range(2):
        mine = record("tropd", k, 0, training={"same": 1.0, "more": 2.0})
        publish(tmp_path / str(k), mine, record("opd", k, 0, training={"same": 1.0, "more": 1.0}))
    cells = load_cells(sorted(tmp_path.iterdir()), "arithmetic")
    found = [found_of(Claim(**{**CLAIM, "quantity": key}), cells)[0] for key in ("same", "more")]
    assert [(f.p_value, f.verdict) for f in found] == [(1.0, "not resolved"), (0.0, "as claimed")]


def test_every_other_method_is_a_test_each(tmp_path: Path) -> None:
    """Of three methods beside OPD one gains on every problem; the two that do not count in the family all the same."""
    gains = {"opd": 0, "tropd": 1, "eopd": 0, "reopold": 0}
    folders = [publish(tmp_path / str(k), *(record(name, k, gain) for name, gain in gains.items())) for k in range(3)]
    cells = load_cells(folders, "arithmetic")
    claim = Claim(**{**CLAIM, "a": "*"})
    found = found_of(claim, cells)
    assert [(f.label, f.verdict) for f in found] == [
        ("eopd", "not resolved"),
        ("reopold", "not resolved"),
        ("tropd", "as claimed"),
    ]
    (alone,) = found_of(Claim(**CLAIM), cells)
    assert found[2].p_value == pytest.approx(3 * alone.p_value)
    text = render([claim], cells)
    assert "every other method higher than `opd`? Family: f." in text
    assert "2 of 3 differences are not resolved. The others:" in text and "| `tropd` | student_latent |" in text
    assert "| f | 1 | 3 | 1 / 0 / 2 |" in text and "| `eopd` |" not in text


def test_the_summary_counts_cells(tmp_path: Path) -> None:
    """Two rates: at one tropd gains on every problem, at the other nothing; at a third it was not run."""
    for rate, gain in ((1e-3, 1), (3e-3, 0), (9e-3, None)):
        runs = [record("opd", k, 0, rate=rate) for k in range(3)]
        runs += [record("tropd", k, gain, rate=rate) for k in range(3) if gain is not None]
        publish(tmp_path / str(rate), *runs)
    cells = load_cells(sorted(tmp_path.iterdir()), "arithmetic")
    text = render([Claim(**CLAIM), Claim(**{**CLAIM, "claim": "z", "b": "absent"})], cells)
    assert "| x | 1 / 0 / 1 |\n| z | – |\n" in text and "in all 1 / 0 / 1." in text
    assert text.count("Not measured yet.") == 1


def test_one_replicate_says_nothing(tmp_path: Path) -> None:
    folder = publish(tmp_path / "a", record("opd", 0, 0), record("tropd", 0, 2))
    assert found_of(Claim(**CLAIM), load_cells([folder], "arithmetic")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expected": "better"}, "entry 1: expected must be higher or lower, got 'better'"),
        ({"typo": "x"}, "unknown key typo"),
        ({"a": None}, "a must be text, got None"),
        ({"family": None}, "entry 1: family must be text, got None"),
        ({"quantity": "grad_nrom"}, "has no metric 'grad_nrom'"),
    ],
)
def test_bad_claims_are_named(tmp_path: Path, capsys, change: dict, message: str) -> None:
    folders = [publish(tmp_path / str(k), record("opd", k, 0), record("tropd", k, 1)) for k in range(2)]
    path = claims_file(tmp_path, {**CLAIM, **change})
    assert main([str(path), *map(str, folders), "--output", str(tmp_path / "out.md")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.md").exists()


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_the_committed_findings_are_what_the_runs_say(study: Path, tmp_path: Path) -> None:
    folders = sorted(path.parent for path in study.glob("*/runs.jsonl"))
    assert main([str(study / "claims.yaml"), *map(str, folders), "--output", str(tmp_path / "findings.md")]) == 0
    assert (tmp_path / "findings.md").read_text() == (study / "findings.md").read_text()


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_every_claim_is_about_methods_that_exist(study: Path) -> None:
    known = {path.stem for path in (ROOT / "baselines").glob("*.py")}
    for claim in load_claims(study / "claims.yaml"):
        assert {label.partition(" (")[0] for label in (claim.a, claim.b)} - {
            "*"
        } <= known  # a label may name changed knobs

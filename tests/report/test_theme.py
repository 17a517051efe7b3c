"""What may be shown as text, and figures as inline SVG."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from harness.files import ROOT
from harness.report.curves import build_curve
from harness.report.plots import Estimate, Metric, Scale, draw_curves, draw_forest, shared_limits
from harness.report.theme import _DASHES, HUES, assign_looks
from harness.results.escape import visible
from harness.results.statistics import mean_interval


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 \t\n", "plain é 漢 \t\n"),
        ("\x00\x1b[0m", "␀␛[0m"),
        ("\x7f\x9f", "␡⟨U+009F⟩"),
        ("\u202eabc\ufeff", "⟨U+202E⟩abc⟨U+FEFF⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("\r\n", "␍\n"),
    ],
)
def test_text_that_cannot_be_seen_is_named(text: str, shown: str) -> None:
    assert visible(text) == shown
    visible(text).encode()


def test_looks_of_a_page_are_all_different() -> None:
    labels = [f"m{number:02}" for number in range(3 * HUES)]
    looks = assign_looks(["student", *labels, "teacher"])
    assert looks == assign_looks(["teacher", *reversed(labels), "student"])
    assert len({(look.variable, look.dash) for look in looks.values()}) == len(labels) + 2


def test_a_method_keeps_its_colour_whatever_stands_beside_it() -> None:
    methods = sorted(path.stem for path in (ROOT / "baselines").glob("[a-z]*.py"))
    together = assign_looks(methods)
    own = min(len(methods), HUES * len(_DASHES)) + 2  # student and teacher; of more methods some share a look
    assert len({(look.variable, look.dash) for look in together.values()}) == own
    for method in methods:
        assert assign_looks(["a_new_one", method])[method] == together[method]
    four = [together[method].variable for method in ("opd", "tropd", "eopd", "reopold")]
    assert len(set(four)) == 4 and {together[m].dash for m in ("opd", "tropd", "eopd", "reopold")} == {"-"}
    assert assign_looks(["mine"])["mine"] == assign_looks(["opd", "mine", "tropd"])["mine"]


def test_figure_follows_the_theme_and_names_itself() -> None:
    label = "a $x$ <b>&"
    curve = build_curve(label, [[{"step": step, "x": 0.25 * step} for step in (1, 2, 3)]], "x")
    assert curve is not None
    panel = draw_curves("key", Metric("x", "Title & more", "unit"), [curve], assign_looks([label]), "step")
    root = ElementTree.fromstring(panel.svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(str(name).startswith("key-") for name in ids)
    assert [root[0].text, root[1].text] == ["Title & more", f"unit, mean over seeds: {label} from 0.25 to 0.75."]
    assert label in [element.text for element in root.iter("title")]
    assert "#0102" not in panel.svg
    assert f"var({assign_looks([label])[label].variable})" in panel.svg
    assert {element.text for element in root.iter("text")} >= {"0.3", "optimiser steps"}
    assert not re.search(r"<style|font-family|http", panel.svg)
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', panel.svg)
    assert {a or b for a, b in references} <= set(ids)
    assert panel.header == ("step", label)
    assert panel.rows == (("1", "0.25"), ("2", "0.5"), ("3", "0.75"))


def test_forest_plot_has_the_numbers_of_the_leaderboard() -> None:
    interval = mean_interval([[0.0, 1.0, 1.0, 0.0]])
    panel = draw_forest("f", ("Score", "%."), [Estimate("opd", "50.0 [1, 2]", interval)], assign_looks(["opd"]))
    root = ElementTree.fromstring(panel.svg)
    assert {"opd", "50.0 [1, 2]"} <= {element.text for element in root.iter("text")}
    assert panel.rows == (("opd", "50.00", f"{100 * interval.low:.2f}", f"{100 * interval.high:.2f}"),)


@pytest.mark.parametrize(("teacher", "words"), [(0.97, "teacher 97 →"), (0.55, "| teacher 97"), (0.1, "← teacher 97")])
def test_the_teacher_does_not_squeeze_the_methods(teacher: float, words: str) -> None:
    """The methods' interval is 30 to 50 %: a line of up to 40 % of these 20 points beyond is drawn, else an arrow."""
    method = Estimate("opd", "40", replace(mean_interval([[0.0, 1.0]]), estimate=0.4, low=0.3, high=0.5))
    scale = Scale(reference=Estimate("teacher", "97", replace(method.interval, estimate=teacher)))
    panel = draw_forest("f", ("Score", "%."), [method], assign_looks(["opd"]), scale)
    texts = [element.text or "" for element in ElementTree.fromstring(panel.svg).iter("text")]
    assert words in texts
    ticks = [float(text) for text in texts if text.replace(".", "").isdigit() and text != "40"]
    assert all(28 <= tick <= 57 for tick in ticks)
    assert [row[0] for row in panel.rows] == ["opd", "teacher"]


def test_plots_side_by_side_share_their_limits() -> None:
    """0 and all ends, here from -20 to 60, with a twentieth of these 80 points on both sides."""

    def estimate(low: float, high: float) -> Estimate:
        return Estimate("m", "", replace(mean_interval([[0.0, 1.0]]), estimate=0.0, low=low, high=high))

    assert shared_limits([[estimate(-0.2, 0.1)], [estimate(0.3, 0.6)], []]) == pytest.approx((-24.0, 64.0))
    assert shared_limits([]) == (-1.0, 1.0)

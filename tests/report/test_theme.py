"""What may be shown as text, and figures as inline SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from harness.report.curves import build_curve
from harness.report.plots import Estimate, Metric, draw_curves, draw_forest
from harness.report.theme import HUES, assign_looks
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


def test_looks_depend_on_the_set_of_labels_and_are_all_different() -> None:
    labels = [f"m{number:02}" for number in range(3 * HUES)]
    looks = assign_looks(["student", *labels, "teacher"])
    assert looks == assign_looks(["teacher", *reversed(labels), "student"])
    assert len({(look.variable, look.dash) for look in looks.values()}) == len(labels) + 2


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
    assert "var(--hue-0)" in panel.svg
    assert {element.text for element in root.iter("text")} >= {"0.3", "optimiser steps"}
    assert not re.search(r"<style|font-family|http", panel.svg)
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', panel.svg)
    assert {a or b for a, b in references} <= set(ids)
    assert panel.header == ("step", label)
    assert panel.rows == (("1", "0.25"), ("2", "0.5"), ("3", "0.75"))


def test_forest_plot_has_the_numbers_of_the_leaderboard() -> None:
    interval = mean_interval([[0.0, 1.0, 1.0, 0.0]])
    panel = draw_forest("f", "Score", "%.", [Estimate("opd", "50.0 [1, 2]", interval)], assign_looks(["opd"]))
    root = ElementTree.fromstring(panel.svg)
    assert {"opd", "50.0 [1, 2]"} <= {element.text for element in root.iter("text")}
    assert panel.rows == (("opd", "50.00", f"{100 * interval.low:.2f}", f"{100 * interval.high:.2f}"),)

"""The colours of the methods, and matplotlib figures as inline SVG that follows the page's theme.

A figure is drawn in placeholder colours, and each is replaced by a variable of style.css: one drawing serves the
light, the dark and the printed page. Its text stays text, in the page's font.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from harness.results.escape import visible
from harness.types import UNTRAINED

HUES = 8  # colours of methods in style.css: --hue-0 … --hue-7
_DASHES: Sequence[str] = ("-", "--", ":", "-.")  # tell methods apart that share a hue
# A name's place in this list is its colour for good: hue after hue, first solid, then dashed. Names are only appended.
_KNOWN: Sequence[str] = (
    *("opd", "tropd", "eopd", "reopold", "seqkd", "reverse_kl", "fkl_direct", "tropd_stop"),
    *("aopd", "tropd_mask", "reopold_2stage", "gkd", "fkl_stop", "fkl_outlier", "tropd_clip", "sft"),
    *("jsd", "mask_outlier", "clip_outlier", "vopd", "topd", "fkl_scalar", "additive_trust", "tropd_scalar"),
    *("entropy_opd", "random_gate", "fixed_negative", "additive_trust_stop", "fkl_tail", "tropd_expected"),
    *("tropd_aopd", "tropd_scalar_prefix"),
)
INK, MUTED, RULE = "#010203", "#010204", "#010205"  # placeholder colours
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", "#010206": "--hue-student", "#010207": "--hue-teacher"}
_VARIABLES |= {f"#0102{16 + hue:02x}": f"--hue-{hue}" for hue in range(HUES)}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans", "sans-serif"],  # two, so that the SVG names the size apart
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.limits": (-4, 6),
    "axes.formatter.use_mathtext": False,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "xtick.major.width": 0.7,
    "ytick.major.size": 0,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "path.simplify_threshold": 0.2,
}

_TITLED = "title:"  # begins the gid of an artist that has a title
_NUMBER = re.compile(r"-?\d+\.\d+")
_FONT = re.compile(r"font-family: [^;]*;? ?")  # the page's own font serves
_COLOUR = re.compile("#[0-9a-f]{6}")


@dataclass(frozen=True)
class Look:
    """How a label is drawn, in every figure and chip of the page."""

    variable: str  # of style.css
    placeholder: str  # in matplotlib
    dash: str


def assign_looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look for each label, which belongs to its name: the same on every page, whatever else is shown there.

    Student, teacher and the methods of _KNOWN have their own; another label's is drawn by the hash of its name, and
    drawn again where the page has that look already.
    """
    by_variable = {variable: placeholder for placeholder, variable in _VARIABLES.items()}
    looks = {label: Look(f"--hue-{label}", by_variable[f"--hue-{label}"], "--") for label in UNTRAINED}
    known = {label: (n % HUES, _DASHES[n // HUES]) for n, label in enumerate(_KNOWN) if label in labels}
    taken = set(known.values())
    for label in sorted(set(labels) - set(UNTRAINED)):
        drawn = [known[label]] if label in known else _drawn_looks(label)
        hue, dash = next((look for look in drawn if label in known or look not in taken), drawn[0])
        taken.add((hue, dash))
        looks[label] = Look(f"--hue-{hue}", by_variable[f"--hue-{hue}"], dash)
    return looks


def _drawn_looks(label: str) -> list[tuple[int, str]]:
    """Hues and dashes in the order in which a label draws them; nearly every one comes up."""
    digests = [hashlib.sha256(f"{label} {draw}".encode()).digest() for draw in range(8 * HUES * len(_DASHES))]
    return [(digest[0] % HUES, _DASHES[digest[1] % len(_DASHES)]) for digest in digests]


def style_context() -> AbstractContextManager[None]:
    """matplotlib's settings for the figures of the page; a context manager."""
    return matplotlib.rc_context(_STYLE)


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in units of the SVG's view box, which are about CSS pixels."""
    figure = Figure(figsize=(width / 72, height / 72))
    figure.patch.set_visible(False)
    FigureCanvasSVG(figure)
    return figure


def titled(text: str) -> str:
    """The gid of an artist that shows `text` under the pointer."""
    return _TITLED + visible(text)


def to_svg(figure: Figure, key: str, title: str, description: str) -> Markup:
    """The figure as an <svg> element with a title and a description for those who cannot see it.

    Args: key: unique in the page; the element's ids start with it.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser draws the text
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = ElementTree.fromstring(buffer.getvalue())
    referenced = set(re.findall(r"#([\w.-]+)(?=[\")])", buffer.getvalue()))
    width, height = figure.get_size_inches() * 72
    svg = Element("svg", viewBox=f"0 0 {width:.0f} {height:.0f}", role="img")
    svg.set("aria-labelledby", f"{key}-title {key}-desc")
    for name, text in (("title", title), ("desc", description)):
        SubElement(svg, name, id=f"{key}-{name}").text = visible(text)
    svg.extend(element for element in drawing if not element.tag.endswith("metadata"))
    for element in list(svg.iter()):
        _adapt(element, key, referenced)
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def _adapt(element: Element, key: str, referenced: set[str]) -> None:
    """Plain names, ids that are unique in the page, the theme's colours and font, and coordinates to a tenth of a
    pixel.
    """
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    if element.text is not None and not element.text.strip():
        element.text = None
    for style in [child for child in element if child.tag.endswith("}style")]:
        element.remove(style)  # it would speak of the whole page
    attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    element.attrib.clear()
    name = attributes.pop("id", "")
    if name in referenced or name.startswith(key):
        attributes["id"] = name if name.startswith(key) else f"{key}-{name}"
    elif name.startswith(_TITLED):
        title = Element("title")
        title.text = name.removeprefix(_TITLED)
        element.insert(0, title)
    for name, value in attributes.items():
        if name == "transform" and value.startswith("rotate(-0 "):
            continue
        value = value.replace("url(#", f"url(#{key}-")
        if name == "href":
            value = value.replace("#", f"#{key}-") if value.startswith("#") else value
        elif name in ("d", "x", "y", "transform"):
            value = _NUMBER.sub(lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), value)
            value = " ".join(value.split())
        elif name == "style":
            value = _FONT.sub("", value)
            value = _COLOUR.sub(
                lambda match: f"var({_VARIABLES[match[0]]})" if match[0] in _VARIABLES else match[0], value
            )
        element.set(name, value)

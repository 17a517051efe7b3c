"""What a fuzzer makes of sound input: values of every kind in any place, and bytes that were damaged."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NUMBERS = st.sampled_from([0, -1, 1, 2**31, -(2**63), 10**30, 0.0, -0.5, 1e308, math.nan, math.inf, -math.inf])
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", " ", ".", "..", "../../escape", "/", "a/b", "a\\b", "x" * 500, "cpu", "cuda:9", "%", "*"]),
    st.sampled_from(["\x00", "\x1b[2J", "\ud800", "a\nb", "\u2028", "\u202e", "=1+1", "<b>", "`x`", "[a](b)", "$x$"]),
    st.sampled_from(["nan", "null", "true", "1e3", "${seed}", "${nosuch}", "${", "???"]),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a value of JSON, the whole one first."""
    found = [here]
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        found += places(entry, (*here, key))
    return found


@st.composite
def changed(draw: st.DrawFn, sound: Any, changes: int = 2) -> Any:
    """A value of JSON of which one entry or two are replaced, taken away, doubled or new."""
    value = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, changes))):
        if not value:
            break
        *path, last = draw(st.sampled_from(places(value)[1:]))
        home = value
        for key in path:
            home = home[key]
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if kind == "remove" and isinstance(home, dict | list):
            del home[last]
        elif kind == "add" and isinstance(home, dict):
            home[draw(TEXTS)] = draw(VALUES)
        elif kind == "add":
            home.append(draw(VALUES))
        else:
            home[last] = draw(VALUES)
    return value


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """Bytes of which a part is flipped, cut off, taken out, doubled, moved or made of something else."""
    start = draw(st.integers(0, len(sound)))
    end = min(len(sound), start + draw(st.integers(0, 40)))
    lines = sound.split(b"\n")
    line = draw(st.integers(0, len(lines) - 1))
    return draw(
        st.sampled_from(
            [
                sound[:start],
                sound[:start] + sound[end:],
                sound[:end] + sound[start:],
                sound[:start] + bytes(b ^ 0x55 for b in sound[start:end]) + sound[end:],
                sound[:start] + draw(st.binary(max_size=8)) + sound[start:],
                b"\n".join(lines[:line] + lines[line + 1 :]),
                b"\n".join(lines[: line + 1] + lines[line:]),
                b"\n".join(lines[::-1]),
                sound.decode("utf-8", "replace").encode("utf-16"),
                b"[" * 20_000,
                b"",
            ]
        )
    )


def rows_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """A JSONL file of such values, with NaN and halves of surrogate pairs as Python writes them."""
    return st.lists(values, min_size=1, max_size=4).map(
        lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode()
    )


def holds(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], examples: int) -> None:
    """Asserts a property of this many examples, the same ones every time."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def property_(value: Any) -> None:
        check(value)

    property_()

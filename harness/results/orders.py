"""Where the order of two methods turns round between decodings, and how sure that is.

A difference is *resolved* over two or more seeds and after Holm's correction over all pairs of one decoding. An order
turns round where one method is above the other under one decoding and below it under another. That is resolved if both
differences are; each is tested at its decoding's level, so a resolved turn is false no more often than one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

OWN_NAME = "own"  # of a task's own decoding beside named ones


class Turn(Enum):
    """How sure it is that an order turns round."""

    RESOLVED = "resolved on both sides"
    ONE_SIDE = "resolved on one side alone"
    NEITHER = "resolved on neither side"


@dataclass(frozen=True)
class Order:
    """Two methods under one decoding."""

    a: str
    b: str
    difference: float  # a - b, in [-1, 1]
    resolved: bool


@dataclass(frozen=True)
class TurnedOrder:
    """Two methods whose order depends on the decoding."""

    a: str
    b: str
    above: tuple[tuple[str, bool], ...]  # decodings under which a scores more than b, each with: is it resolved?
    below: tuple[tuple[str, bool], ...]  # likewise, less

    @property
    def turn(self) -> Turn:
        """How sure it is."""
        sides = sum(any(resolved for _, resolved in side) for side in (self.above, self.below))
        return (Turn.NEITHER, Turn.ONE_SIDE, Turn.RESOLVED)[sides]

    def __str__(self) -> str:
        """`opd above tropd under sampled (resolved), below under greedy (not resolved)`."""
        return f"{self.a} above {self.b} under {_listed(self.above)}, below under {_listed(self.below)}"


def find_turns(under: Mapping[str, Iterable[Order]]) -> list[TurnedOrder]:
    """The pairs whose order differs between two of the decodings that they are compared under, the surest first."""
    pairs: dict[tuple[str, str], list[tuple[str, Order]]] = {}
    for decoding, orders in under.items():
        for order in orders:
            pairs.setdefault((order.a, order.b), []).append((decoding, order))
    found = []
    for (a, b), orders_of in pairs.items():
        above = tuple((name, order.resolved) for name, order in orders_of if order.difference > 0)
        below = tuple((name, order.resolved) for name, order in orders_of if order.difference < 0)
        if above and below:
            found.append(TurnedOrder(a, b, above, below))
    return sorted(found, key=lambda order: (list(Turn).index(order.turn), order.a, order.b))


def _listed(side: Sequence[tuple[str, bool]]) -> str:
    return " and ".join(f"{name or OWN_NAME} ({'resolved' if resolved else 'not resolved'})" for name, resolved in side)

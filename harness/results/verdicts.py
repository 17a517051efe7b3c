"""What a table says in words: who wins under each decoding, where the order of two methods turns round, and what it
cannot see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.config.decodings import OWN, column_of, decoding_of, task_of
from harness.results.columns import title_of
from harness.results.leaderboard import BASELINE, Comparison, Leaderboard, Row
from harness.results.orders import OWN_NAME, Order, Turn, TurnedOrder, find_turns
from harness.results.reference import AVERAGE
from harness.types import UNTRAINED

LISTED_TURNS = 6  # pairs that a line names whose turn is not resolved; more are counted
LISTED_RIVALS = 3  # methods that a sentence names from which the first cannot be told; more are counted
HOW_TO_READ = (
    "How to read it. [low, high]: a 95 % interval, over other problems and other training seeds than these. "
    f"minus {BASELINE}: points, on the same problems and seeds. Rank 1–4: by the resolved differences the method may "
    "be any of the first to the fourth. Cannot see: a true difference smaller than that is missed more often than one "
    "time in five."
)


@dataclass(frozen=True)
class Headline:
    """The verdict of a column, for somebody who reads one sentence."""

    column: str
    title: str  # what the column is, in words
    wins: bool
    text: str


def headlines(board: Leaderboard) -> list[Headline]:
    """A sentence for each decoding: of the average of all tasks where there is one, else of every column."""
    columns = [column for column in board.winners if task_of(column) == AVERAGE] or list(board.winners)
    return [
        Headline(column, title_of(column), board.winners[column] is not None, _plain_verdict(board, column))
        for column in columns
    ]


def decodings_under(board: Leaderboard, task: str) -> list[str]:
    """The decodings of a task's columns, or of an average's, side by side."""
    return [decoding for decoding in board.decodings or [OWN] if column_of(task, decoding) in board.winners]


def verdict_sentence(board: Leaderboard, task: str) -> str:
    """`greedy: tropd wins (+33.3 points over opd, resolved); paper: …; sampled: no winner (…)`, without a full stop."""
    parts = []
    for decoding in decodings_under(board, task):
        verdict = _verdict(board, column_of(task, decoding))
        parts.append(f"{decoding or OWN_NAME}: {verdict}" if board.decodings else verdict)
    return "; ".join(parts)


def turned_orders(board: Leaderboard, task: str) -> list[TurnedOrder]:
    """The pairs of methods whose order differs between two decodings of the task, the surest first."""
    return find_turns(
        {
            decoding: [
                Order(pair.a, pair.b, pair.difference.estimate, resolved=pair.resolved)
                for pair in board.comparisons
                if pair.task == column_of(task, decoding)
            ]
            for decoding in decodings_under(board, task)
        }
    )


def turns_sentence(board: Leaderboard, task: str) -> str:
    """Where the order of two methods turns round between the task's decodings, as one line; empty for one decoding."""
    if len(decodings_under(board, task)) < 2:
        return ""
    found = turned_orders(board, task)
    if not found:
        return "No two methods change their order between decodings."
    sure = [order for order in found if order.turn is not Turn.NEITHER]
    unsure = [order for order in found if order.turn is Turn.NEITHER]
    parts = [f"{order}, {order.turn.value}" for order in sure]
    if unsure:
        names = [f"{order.a} and {order.b}" for order in unsure[:LISTED_TURNS]]
        more = f" and {len(unsure) - LISTED_TURNS} more pairs" if len(unsure) > LISTED_TURNS else ""
        parts.append(f"{', '.join(names)}{more}, {Turn.NEITHER.value}")
    return f"The order turns round between decodings: {'; '.join(parts)}."


def _plain_verdict(board: Leaderboard, column: str) -> str:
    """`tropd wins: it scores 80.1 %, 33.4 points more than opd [28.0, 38.8], ...`"""
    ranked = _ranked(board, column)
    if len(ranked) < 2:
        return f"Nothing to compare: {ranked[0].label if ranked else 'no method'} alone has a score."
    first = ranked[0].label
    scored = f"{100 * _estimate(ranked[0], column):.1f} %, {_lead_in_words(board, ranked, column)}"
    if board.winners[column] is not None:
        return f"{first} wins: it scores {scored}, and its lead over every other method is resolved."
    if _has_one_seed(board, column):
        return f"No verdict from one seed: {first} leads with {scored}."
    pairs = {row.label: _pair(board, column, first, row.label) for row in ranked[1:]}
    rivals = [label for label, pair in pairs.items() if pair is None or not pair.resolved]
    started = [*(row.label for row in board.rows if row.method not in UNTRAINED), *(run.label for run in board.failed)]
    unscored = [label for label in dict.fromkeys(started) if label not in {first, *pairs}]
    doubts = [f"it cannot be told from {_listed(rivals)}"] if rivals else []
    doubts += [f"{_listed(unscored)} {'has' if len(unscored) == 1 else 'have'} no score"] if unscored else []
    return f"No winner: {first} leads with {scored}, but {' and '.join(doubts)}."


def _listed(labels: Sequence[str]) -> str:
    """`a, b and c`, of many `a, b, c and 7 others`."""
    named = list(labels) if len(labels) <= LISTED_RIVALS + 1 else [*labels[:LISTED_RIVALS]]
    named += [f"{len(labels) - len(named)} others"] if len(labels) > len(named) else []
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def _lead_in_words(board: Leaderboard, ranked: Sequence[Row], column: str) -> str:
    """`33.4 points more than opd [28.0, 38.8]`: than the baseline, or than the next one where that is first."""
    first, other = ranked[0].label, _measure(ranked)
    pair = _pair(board, column, first, other)
    if pair is None:
        return f"on no seed that {other} has"
    difference, sign = pair.difference, 1 if pair.a == first else -1
    low, high = sorted((100 * sign * difference.low, 100 * sign * difference.high))
    points = 100 * sign * difference.estimate
    return f"{abs(points):.1f} points {'more' if points >= 0 else 'less'} than {other} [{low:.1f}, {high:.1f}]"


def _verdict(board: Leaderboard, column: str) -> str:
    """Of one column: who wins, or that nobody does and who leads."""
    ranked = _ranked(board, column)
    if len(ranked) < 2:
        return "nothing to compare"
    winner = board.winners[column]
    if winner is not None:
        return f"{winner} wins ({_against(board, ranked, column)})"
    if _has_one_seed(board, column):
        return f"no winner, one seed ({ranked[0].label} leads)"
    return f"no winner ({ranked[0].label} leads, {_against(board, ranked, column)})"


def _against(board: Leaderboard, ranked: Sequence[Row], column: str) -> str:
    """`+33.3 points over opd, resolved`: over the baseline, or over the next method where that one is first."""
    first, other = ranked[0].label, _measure(ranked)
    pair = _pair(board, column, first, other)
    if pair is None:
        return f"no seed in common with {other}"
    points = 100 * pair.difference.estimate * (1 if pair.a == first else -1)
    return f"{points:+z.1f} points over {other}, {'resolved' if pair.resolved else 'not resolved'}"


def _ranked(board: Leaderboard, column: str) -> list[Row]:
    """The methods with a score in the column, the winner or the highest mean first."""
    rows = [row for row in board.rows if row.method not in UNTRAINED and row.score(column)]
    return sorted(rows, key=lambda row: (row.label != board.winners[column], -_estimate(row, column)))


def _measure(ranked: Sequence[Row]) -> str:
    """What the first is held against: the baseline, or the next method where that one is first."""
    others = [row.label for row in ranked[1:]]
    return BASELINE if BASELINE in others else others[0]


def _pair(board: Leaderboard, column: str, a: str, b: str) -> Comparison | None:
    """The comparison of two labels, whichever comes first in it; None without a seed in common."""
    found = (pair for pair in board.comparisons if pair.task == column and {pair.a, pair.b} == {a, b})
    return next(found, None)


def _has_one_seed(board: Leaderboard, column: str) -> bool:
    return not any(len(pair.seeds) > 1 for pair in board.comparisons if pair.task == column)


def _estimate(row: Row, column: str) -> float:
    score = row.score(column)
    return score.interval.estimate if score else 0.0


def describe_power(board: Leaderboard, column: str) -> str:
    """`This table cannot see less than 3.4 points ...`, from the paired differences of the methods to the baseline."""
    points = _detectable(board, column)
    if not points:
        return ""
    least, most = min(points, key=points.__getitem__), max(points, key=points.__getitem__)
    range_ = f"{least} minus {BASELINE}"
    if most != least:
        range_ += f"; {points[most]:.1f} for {most}"
    return f"This table cannot see less than {points[least]:.1f} points ({range_}; 80 % power at 5 %, two-sided)."


def describe_powers(board: Leaderboard, columns: Sequence[str]) -> str:
    """`This table cannot see less than 3.0 (greedy), ...`: of several decodings."""
    least = {column: min(points.values()) for column in columns if (points := _detectable(board, column))}
    if not least:
        return ""
    listed = ", ".join(f"{value:.1f} ({decoding_of(column) or OWN_NAME})" for column, value in least.items())
    return (
        f"This table cannot see less than {listed} points (the surest difference to {BASELINE}; 80 % power at 5 %, "
        "two-sided)."
    )


def _detectable(board: Leaderboard, column: str) -> dict[str, float]:
    """The smallest difference to the baseline that can be seen, by method, in points."""
    return {
        row.label: 100 * score.difference.detectable
        for row in board.rows
        if row.method not in UNTRAINED and (score := row.score(column)) and score.difference
    }

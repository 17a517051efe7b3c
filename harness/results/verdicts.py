"""What a table says in words: who wins under each decoding, where the order of two methods turns round, and what it
cannot see.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.decodings import OWN, column_of, decoding_of
from harness.results.leaderboard import BASELINE, Leaderboard, Row
from harness.results.orders import OWN_NAME, Order, Turn, TurnedOrder, find_turns
from harness.types import UNTRAINED

LISTED_TURNS = 6  # pairs that a line names whose turn is not resolved; more are counted


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


def _verdict(board: Leaderboard, column: str) -> str:
    """Of one column: who wins, or that nobody does and who leads."""
    rows = [row for row in board.rows if row.method not in UNTRAINED and row.score(column)]
    if len(rows) < 2:
        return "nothing to compare"
    ranked = sorted(rows, key=lambda row: -_estimate(row, column))
    winner = board.winners[column]
    if winner is not None:
        first = next(row for row in rows if row.label == winner)
        return f"{winner} wins ({_against(board, first, ranked, column)})"
    if not any(len(pair.seeds) > 1 for pair in board.comparisons if pair.task == column):
        return f"no winner, one seed ({ranked[0].label} leads)"
    return f"no winner ({ranked[0].label} leads, {_against(board, ranked[0], ranked, column)})"


def _against(board: Leaderboard, first: Row, ranked: Sequence[Row], column: str) -> str:
    """`+33.3 points over opd, resolved`: over the baseline, or over the next method where that one is first."""
    others = [row.label for row in ranked if row.label != first.label]
    other = BASELINE if BASELINE in others else others[0]
    for pair in board.comparisons:
        if pair.task == column and {pair.a, pair.b} == {first.label, other}:
            points = 100 * pair.difference.estimate * (1 if pair.a == first.label else -1)
            return f"{points:+.1f} points over {other}, {'resolved' if pair.resolved else 'not resolved'}"
    return f"no seed in common with {other}"


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

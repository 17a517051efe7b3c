"""False positives and negatives of the graders on cases of known truth: `python tests/measure/grader_cases.py
[CASES.jsonl]`.

A line of the file is {"kind", "task": math or gpqa, "row": {"response", "answer"}, "right_verdict", "verdict_before"}.
A verdict of math is whether the response is correct, one of gpqa the letter that it gives, or null. `verdict_before` is
that of the grader before its grammar (commit 59e588e); `verdict_today` is another name for it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks import choice_answer, math_answer

OWN_CASES = Path(__file__).parents[1] / "data" / "grader_cases.jsonl"
TASKS = ("math", "gpqa")  # code is graded by running it


def read_cases(path: Path) -> list[dict[str, Any]]:
    """The cases of a file that these graders grade."""
    cases = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [case for case in cases if case["task"] in TASKS]


def verdict_of(case: Mapping[str, Any]) -> Any:
    """What the strict grader says of a case today."""
    response, answer = case["row"]["response"], case["row"]["answer"]
    if case["task"] == "math":
        return math_answer.grade(response, answer).correct
    return choice_answer.grade(response, answer).extracted


def errors(verdicts: Sequence[Any], cases: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Answers that count and should not (or count as another letter), and those that should and do not."""
    wrong = [(verdict, case["right_verdict"]) for verdict, case in zip(verdicts, cases, strict=True)]
    wrong = [(verdict, right) for verdict, right in wrong if verdict != right]
    negatives = sum(verdict in (False, None) for verdict, _ in wrong)
    return len(wrong) - negatives, negatives


def make_table(cases: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row per kind, in the order of the file, and a sum."""
    lines = [
        "| task | kind | cases | false positives before | now | false negatives before | now |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for case in cases:
        groups.setdefault((case["task"], case["kind"]), []).append(case)
    groups["all", ""] = list(cases)
    for (task, kind), group in groups.items():
        before = errors(
            [case["verdict_before" if "verdict_before" in case else "verdict_today"] for case in group], group
        )
        now = errors([verdict_of(case) for case in group], group)
        lines.append(f"| {task} | {kind} | {len(group)} | {before[0]} | {now[0]} | {before[1]} | {now[1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="?", type=Path, default=OWN_CASES)
    print(make_table(read_cases(parser.parse_args().cases)), end="")


if __name__ == "__main__":
    main()

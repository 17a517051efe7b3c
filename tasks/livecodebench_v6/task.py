"""The task as lm-eval sees it: documents, prompts, a filter that grades all responses at once, and the metrics."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.sandbox import Sandbox
from harness.sandbox.packages import require_packages
from tasks.data import as_splits
from tasks.livecodebench_v6.grading import MODES, TIMEOUT_S, Grade, grade_response
from tasks.livecodebench_v6.problems import Window, load_problems, load_tests
from tasks.livecodebench_v6.prompts import STYLES, prompt
from tasks.sample_metrics import sample_metrics

if TYPE_CHECKING:
    import datasets


def load(
    data_dir: str | None = None,
    mode: str = "official",
    prompt_style: str = "generic",
    timeout_s: int = TIMEOUT_S,
    release: str = "v6",
    start: Any = None,
    end: Any = None,
    **_: Any,
) -> dict[str, datasets.Dataset]:
    """The problems; lm-eval passes the task's metadata as keyword arguments, which so become part of the documents.

    `release`, and `start` and `end` (contest dates, both included) choose the problems, which are in the protocol hash.
    Refuses here, before a model spends hours, where the responses could not be graded afterwards.
    """
    Sandbox.detect()
    packages = ", ".join(f"{name} {version}" for name, version in require_packages().items())
    for name, value, known in (("mode", mode, MODES), ("prompt_style", prompt_style, STYLES)):
        if value not in known:
            raise UserError(f"livecodebench_v6: {name} must be one of {', '.join(known)}, not {value!r}.")
    rows = []
    for problem in load_problems(data_dir, release, Window.of(start, end)):
        system, user = prompt(problem["question"], problem["starter_code"], prompt_style)
        how = {"mode": mode, "timeout_s": timeout_s, "packages": packages}  # part of the protocol hash
        rows.append({**problem, "system": system, "prompt": user, **how})
    return as_splits(test=rows)


def grade_all(responses: Iterable[Iterable[str]], docs: Iterable[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """lm-eval's custom filter, which gets all responses of the task: grades them on all cores."""
    from tqdm import tqdm

    sandbox = Sandbox.detect()
    pairs = [(doc, list(texts)) for doc, texts in zip(docs, responses, strict=True)]
    jobs = [(doc, text) for doc, texts in pairs for text in texts]
    with tqdm(total=len(jobs), desc="livecodebench_v6", unit=" programs", disable=not sys.stderr.isatty()) as bar:
        grades = iter(sandbox.map(lambda job: _graded(*job, sandbox), jobs, done=bar.update))
    return [[next(grades) for _ in texts] for _, texts in pairs]


def process_results(doc: Mapping[str, Any], results: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The metrics of one problem, from what `grade_all` found, or from responses if it has not been in the pipeline."""
    graded = [
        sample if isinstance(sample, Mapping) else _graded(doc, str(sample), Sandbox.detect()) for sample in results[0]
    ]
    metrics = sample_metrics([sample["passed"] for sample in graded], [sample["extracted"] for sample in graded])
    metrics["sandboxed"] = float(all(sample["sandboxed"] for sample in graded))
    return metrics


def _graded(doc: Mapping[str, Any], response: str, sandbox: Sandbox) -> dict[str, Any]:
    """A response's grade. The tests live only as long as its grading."""
    grade: Grade = grade_response(response, load_tests(doc), doc["mode"], sandbox, timeout_s=doc["timeout_s"])
    return {
        "passed": grade.passed,
        "results": list(grade.results),
        "reason": grade.reason,
        "extracted": grade.code,
        "mode": doc["mode"],
        "sandboxed": sandbox.confined,
    }

"""`python -m harness.tune setting=NAME method=a,b,… [rates=…] [seed=100]`: the same learning rates for every method, on development problems.

Every method gets one trial at each rate of the grid (a third, one and three times the setting's own unless `rates`
says otherwise), scored on the evaluation's development task with a seed that no table uses. Other arguments go to
harness.run as they are. Written, also from trials that are there already (`train=false`):

    results/tuning/<setting>_lr<rate>/   runs.jsonl and table of the trials at one rate
    results/tuning/<setting>.yaml, .md   grid, cost, every score, each method's own best rate and the best one for all

A rate chosen at an end of the grid says that the grid is too narrow, and is marked. Exit code: as harness.run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.config.methods import register_methods
from harness.config.settings import RunConfig, whole_number
from harness.config.sweep import planned_runs
from harness.console.commands import exit_code_of
from harness.errors import UserError
from harness.files import write_text
from harness.results.collect import load_records, without_rate
from harness.results.markdown import table
from harness.results.publish import publish
from harness.results.record import RunRecord
from harness.types import UNTRAINED

TUNING = Path("results/tuning")
FACTORS = (1 / 3, 1, 3)  # of the setting's own rate
FIRST_SEED = 100  # seeds below are for tables
OWN_OPTIONS = ("rates", "seed", "train", "output", "results_dir")


@dataclass(frozen=True)
class Options:
    """The command line."""

    rates: tuple[float, ...] | None  # None: FACTORS of the setting's own
    seed: int
    train: bool  # False: summarise the trials that are there
    output: Path
    results_dir: Path  # of the trials' run folders
    overrides: tuple[str, ...]  # for harness.run


@dataclass(frozen=True)
class Tuned:
    """The trials of one method."""

    scores: dict[float, float]  # on the development task, by rate
    best: float  # rate
    at_edge: bool  # the best rate is the grid's smallest or largest
    trials: int
    student_tokens: int  # of all trials
    seconds: float  # of rollouts, scoring and updates of all trials


def parse(arguments: Sequence[str]) -> Options:
    """`key=value` arguments; those of this command are taken out."""
    own = {key: value for key, _, value in (a.partition("=") for a in arguments) if key in OWN_OPTIONS}
    rest = tuple(a for a in arguments if a.partition("=")[0] not in OWN_OPTIONS)
    if taken := [a for a in rest if a.startswith(("setting.learning_rate", "evaluation.tasks"))]:
        raise UserError(f"{taken[0]!r}: this command sets it; give the rates as rates=1e-4,3e-4.")
    seed = whole_number("seed", own.get("seed", FIRST_SEED))
    if seed < FIRST_SEED:
        raise UserError(f"seed={seed}: seeds below {FIRST_SEED} are for tables; tune with another.")
    if own.get("train", "true") not in ("true", "false"):
        raise UserError(f"train={own['train']!r}: must be true or false.")
    try:
        rates = tuple(sorted({float(text) for text in own["rates"].split(",")})) if "rates" in own else None
    except ValueError:
        raise UserError(f"rates={own['rates']!r}: must be numbers such as 1e-4,3e-4.") from None
    if rates is not None and not all(rate > 0 for rate in rates):
        raise UserError(f"rates={own['rates']!r}: must be positive.")
    return Options(
        rates=rates,
        seed=seed,
        train=own.get("train", "true") == "true",
        output=Path(own.get("output", TUNING)),
        results_dir=Path(own.get("results_dir", ".cache/tuning")),
        overrides=rest,
    )


def trial_arguments(options: Options, base: RunConfig) -> list[str]:
    """What harness.run is called with: every method at every rate, scored on the development task alone."""
    task = base.evaluation.dev_task
    if task is None:
        raise UserError(
            "evaluation.dev_task is not set: rates are chosen on development problems, never on a benchmark."
        )
    rates = options.rates or tuple(factor * base.setting.learning_rate for factor in FACTORS)
    return [
        *options.overrides,
        f"setting.learning_rate={','.join(f'{rate:.3g}' for rate in rates)}",
        f"seed={options.seed}",
        f"evaluation.tasks=[{task}]",
        "evaluation.dev_task=null",
        f"results_dir={options.results_dir}",
    ]


def tune(options: Options) -> int:
    """Runs the trials, publishes them rate by rate, and writes the summary."""
    fixed = [a for a in options.overrides if a.partition("=")[0] != "method"]
    (base,) = planned_runs([*fixed, "method=opd", "hydra.mode=RUN"])
    code = 0
    if options.train:
        arguments = trial_arguments(options, base)
        runs = planned_runs(arguments)
        code = subprocess.run([sys.executable, "-m", "harness.run", *arguments], stdout=subprocess.DEVNULL).returncode
        if code not in (0, 1):  # 1: a run failed, which the summary shows
            return code
        for folder, run in {run.comparison_folder(): run for run in runs}.items():
            publish(folder, options.output / f"{run.setting.name}_lr{run.setting.learning_rate:g}")
    folders = sorted(options.output.glob(f"{base.setting.name}_lr*/"))
    if not folders:
        raise UserError(f"{options.output} holds no trials of {base.setting.name}; run without train=false.")
    write_summary(options.output, base.setting.name, [record for f in folders for record in load_records(f)])
    print((options.output / f"{base.setting.name}.md").read_text(encoding="utf-8"), end="")
    return code


def summarise(records: Sequence[RunRecord]) -> tuple[dict[str, Tuned], dict[str, int]]:
    """Methods with a trial at every rate of the grid, and the number of trials of those without, by label."""
    trained = [record for record in records if record.method not in UNTRAINED]
    grid = sorted({float(record.setting["learning_rate"]) for record in trained})
    by_label: dict[str, list[RunRecord]] = {}
    for record in trained:
        if record.status == "completed":
            by_label.setdefault(record.label, []).append(record)
    tuned: dict[str, Tuned] = {}
    partial = dict.fromkeys((record.label for record in trained), 0)
    for label, found in sorted(by_label.items()):
        scores = {float(record.setting["learning_rate"]): record.evaluations[0].score for record in found}
        if sorted(scores) != grid:
            partial[label] = len(scores)
            continue
        del partial[label]
        best = max(grid, key=lambda rate: scores[rate])
        counters = [record.counters for record in found]
        seconds = sum(c.rollout_s + c.scoring_s + c.update_s for c in counters)
        tokens = sum(c.student_tokens for c in counters)
        edge = best in (grid[0], grid[-1])
        tuned[label] = Tuned(
            scores={r: scores[r] for r in grid},
            best=best,
            at_edge=edge,
            trials=len(grid),
            student_tokens=tokens,
            seconds=round(seconds, 1),
        )
    return tuned, dict(sorted(partial.items()))


def best_for_all(tuned: Mapping[str, Tuned]) -> float:
    """The rate with the best score averaged over the methods."""
    grid = list(next(iter(tuned.values())).scores)
    return max(grid, key=lambda rate: sum(entry.scores[rate] for entry in tuned.values()))


def write_summary(folder: Path, setting: str, records: Sequence[RunRecord]) -> None:
    """Writes <setting>.yaml and <setting>.md."""
    seeds = {record.seed for record in records}
    tasks = {(e.task, e.protocol_hash) for record in records for e in record.evaluations}
    kinds = {without_rate(record.setting) for record in records}
    for what, found in (("seeds", seeds), ("development tasks", tasks), ("settings", kinds)):
        if len(found) > 1:
            raise UserError(f"the trials of {setting} in {folder} have different {what}; keep one kind.")
    tuned, partial = summarise(records)
    if not tuned:
        raise UserError(f"no method has a finished trial at every rate of {setting}; see the tables in {folder}.")
    ((task, protocol),) = tasks
    content: dict[str, Any] = {
        "setting": setting,
        "task": task,
        "protocol_hash": protocol,
        "seed": seeds.pop(),
        "grid": list(next(iter(tuned.values())).scores),
        "best_for_all": best_for_all(tuned),
        "methods": {label: asdict(entry) for label, entry in tuned.items()},
        "not_tuned": partial,  # trials that these have, of the grid's
    }
    write_text(folder / f"{setting}.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    write_text(folder / f"{setting}.md", render(content))


def render(content: Mapping[str, Any]) -> str:
    """The summary as markdown."""
    grid, methods = content["grid"], content["methods"]
    header = ["method", *(f"{rate:g}" for rate in grid), "own best", "trials", "student tokens", "seconds"]
    rows = []
    for label, entry in methods.items():
        scores = [f"{100 * entry['scores'][rate]:.1f}" for rate in grid]
        best = f"{entry['best']:g}{' (end of the grid)' if entry['at_edge'] else ''}"
        cost = [str(entry["trials"]), f"{entry['student_tokens']:,}", f"{entry['seconds']:.0f}"]
        rows.append([label, *scores, best, *cost])
    partial = ", ".join(f"{label} ({count} of {len(grid)})" for label, count in content["not_tuned"].items())
    return (
        f"Learning rates of {content['setting']}: accuracy in % on {content['task']} (protocol {content['protocol_hash'][:8]}), one trial "
        f"a method and rate, seed {content['seed']}. Best for all, averaged over these methods: {content['best_for_all']:g}.\n\n"
        + table(header, rows, "lr")
        + (f"\n\nWithout a trial at every rate: {partial}." if partial else "")
        + "\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0

    def command() -> int:
        register_methods()
        return tune(parse(arguments))

    return exit_code_of(command)


if __name__ == "__main__":
    sys.exit(main())

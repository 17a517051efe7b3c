"""`python -m harness.tune setting=NAME method=a,b,… [rates=…] [seed=100]`: the same learning rates for every method, on
development problems.

Every method gets one trial at each rate of the grid (a third, one and three times the setting's own unless `rates`
says otherwise), scored on the evaluation's development task with a seed that no table uses, decoded as the tables are
ordered (`evaluation.order_by`). Other arguments go to harness.run as they are. Written, also from trials that are
there already (`train=false`):

    results/tuning/<setting>_lr<rate>/   runs.jsonl and table of the trials at one rate
    results/tuning/<setting>.yaml, .md   grid, cost, every score, each method's own best rate and the best one for all

A rate chosen at an end of the grid says that the grid is too narrow, and is marked. Exit code: as harness.run.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.settings import RunConfig
from harness.config.sweep import planned_runs
from harness.config.values import whole_number
from harness.console.commands import asks_for_help, exit_code_of
from harness.errors import UserError

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
        if rates is not None and not all(0 < rate < math.inf for rate in rates):
            raise ValueError
    except ValueError:
        raise UserError(f"rates={own['rates']!r}: must be positive numbers such as 1e-4,3e-4.") from None
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
    several = any(base.evaluation.decodings_of(name) for name in base.evaluation.tasks)
    decoding = [f"++evaluation.decodings.{task}=[{base.evaluation.order_by}]"] if several else []
    return [
        *options.overrides,
        f"setting.learning_rate={','.join(f'{rate:.3g}' for rate in rates)}",
        f"seed={options.seed}",
        f"evaluation.tasks=[{task}]",
        "evaluation.dev_task=null",
        *decoding,
        f"results_dir={options.results_dir}",
    ]


def tune(options: Options) -> int:
    """Runs the trials, publishes them rate by rate, and writes the summary."""
    fixed = [a for a in options.overrides if a.partition("=")[0] != "method"]
    (base,) = planned_runs([*fixed, "method=opd", "hydra.mode=RUN"])
    code = _train(options, base) if options.train else 0
    if code not in (0, 1):  # 1: a run failed, which the summary shows
        return code

    from harness.results.collect import load_records
    from harness.results.tuning import write_summary

    folders = sorted(options.output.glob(f"{base.setting.name}_lr*/"))
    if not folders:
        raise UserError(f"{options.output} holds no trials of {base.setting.name}; run without train=false.")
    write_summary(options.output, base.setting.name, [record for f in folders for record in load_records(f)])
    print((options.output / f"{base.setting.name}.md").read_text(encoding="utf-8"), end="")
    return code


def _train(options: Options, base: RunConfig) -> int:
    """Runs the trials and publishes those that finished; the exit code of harness.run."""
    from harness.results.publish import publish

    arguments = trial_arguments(options, base)
    runs = planned_runs(arguments)
    code = subprocess.run([sys.executable, "-m", "harness.run", *arguments], stdout=subprocess.DEVNULL).returncode
    if code in (0, 1):
        for folder, run in {run.comparison_folder(): run for run in runs}.items():
            publish(folder, options.output / f"{run.setting.name}_lr{run.setting.learning_rate:g}")
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)

    def command() -> int:
        if asks_for_help(given):
            print(__doc__)
            return 0
        return tune(parse(given))

    return exit_code_of(command)


if __name__ == "__main__":
    sys.exit(main())

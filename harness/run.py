"""`python -m harness.run [key=value …]`: trains and scores methods under equal conditions, a Hydra sweep over methods x
seeds, and prints the table.

    python -m harness.run                                the default comparison: 4 methods x 3 seeds on tiny models
    python -m harness.run method=tropd,opd seed=0,1      narrows it (key=a,b sweeps)
    python -m harness.run method=tropd method.beta=0     a knob; the run gets a row of its own
    python -m harness.run method=tropd seed=3 hydra.mode=RUN   one run, which joins the same table
    python -m harness.run setting=custom setting.student=… setting.teacher=… setting.prompts=…
    python -m harness.run experiment=ci_regression       a table, or a set of asserted facts, from conf/experiment/

Exit code: 0 all runs finished and every expectation holds; 1 a run failed, an expectation does not hold or the
leaderboard is broken; 2 bad input.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # runs use the cores side by side

import hydra
from omegaconf import DictConfig
from rich.console import Console

from harness.config.comments import task_names
from harness.config.decodings import task_of
from harness.config.settings import CONF_DIR, RunConfig
from harness.config.sweep import options_and_configuration, planned_runs, quoted
from harness.console import parent
from harness.console.commands import (
    BAD_INPUT,
    HELP_FLAGS,
    asks_for_help,
    complain_once,
    exit_code_of,
    quiet_libraries,
    stop_if_interrupted,
)
from harness.console.waiting import waiting
from harness.errors import UserError
from harness.results.record import RunRecord, load_record, read_metrics
from harness.training.checks import check_comparison, check_execution, protocols_of
from harness.types import UNTRAINED

INFORMATION_FLAGS = {"--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}  # Hydra's


@hydra.main(version_base=None, config_path=str(CONF_DIR), config_name="config")
def hydra_job(cfg: DictConfig) -> None:
    """One run of the sweep, in whatever process the launcher chose."""
    from harness.training.job import run_job

    parent.follow()
    quiet_libraries()
    try:
        run_job(RunConfig.from_hydra(cfg))
    except UserError as error:  # the sweep goes on; the run is missing from the table, and the exit status says so
        complain_once(str(error))


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    sys.argv[1:] = quoted(sys.argv[1:] if arguments is None else arguments)  # which Hydra reads
    return exit_code_of(lambda: _run(sys.argv[1:]))


def _run(arguments: Sequence[str]) -> int:
    if asks_for_help(arguments):
        return show_help([argument for argument in arguments if argument not in HELP_FLAGS])
    if INFORMATION_FLAGS & {argument.partition("=")[0] for argument in arguments}:
        # refuses what is mistyped in one sentence, which Hydra does not
        options_and_configuration([a for a in arguments if "=" in a and not a.startswith("-")])
        hydra_job()
        return 0
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # under `accelerate launch` or torchrun
        return compare_together(arguments)
    return compare(arguments)


def show_help(overrides: Sequence[str]) -> int:
    """Prints what this command takes: its groups, and the whole configuration as a command line with these overrides
    has it.
    """
    options, configuration = options_and_configuration(overrides)
    groups = [f"{group}: {', '.join(names)}" for group, names in options.items()]
    groups.append(f"evaluation.tasks: a list of {', '.join(task_names())}")
    print(__doc__, "Groups (group=option):", "", *groups, "", "Configuration of this command line:", "", sep="\n")
    print(configuration, end="")
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Checks the whole sweep before anything is trained, runs it, and prints the tables."""
    from harness.console.monitor import Monitor

    with waiting("reading the configuration") as say:
        runs = planned_runs(arguments)
        if any(run.dry_run for run in runs):
            from harness.planning.dry_run import show_plan

            say("")
            check_execution(runs)
            return show_plan(runs, arguments)
        say("checking models, prompts and tasks")
        check_comparison(runs)
    one_after_another(runs, arguments)
    runs = fit_memory(runs, arguments)
    say_pairs(runs, arguments)
    quiet_libraries()
    parent.lead()
    stop_if_interrupted()
    monitor = Monitor([run.run_folder() for run in runs], Console(stderr=True), title_of(runs))
    try:
        with monitor:
            hydra_job()
            refused = [run for run in runs if not (run.run_folder() / "record.json").exists()]
            if len(refused) == len(runs):
                return BAD_INPUT
            add_untrained_rows(runs)
    except KeyboardInterrupt:
        print(*monitor.where_it_stands(), sep="\n", file=sys.stderr)
        raise
    code = report(runs, shlex.join(["python", "-m", "harness.run", *arguments]))
    return BAD_INPUT if refused else code


def title_of(runs: Sequence[RunConfig]) -> str:
    """What is about to be done, in a line per comparison: methods, seeds, folder."""
    lines = []
    for folder in dict.fromkeys(run.comparison_folder() for run in runs):
        own = [run for run in runs if run.comparison_folder() == folder]
        methods = ", ".join(dict.fromkeys(run.run_folder().parent.name for run in own))
        seeds = ", ".join(str(seed) for seed in dict.fromkeys(run.seed for run in own))
        lines.append(f"{methods}; seed {seeds}: {len(own)} runs in {folder}")
    return "\n".join(lines)


def one_after_another(runs: Sequence[RunConfig], arguments: Sequence[str]) -> None:
    """On a GPU runs follow one another, unless the command names a launcher: the default would start one run per core
    of the processor, all of them on the same card.
    """
    from harness.engines.checks import device_of

    named = any(argument.partition("=")[0].endswith("hydra/launcher") for argument in arguments)
    if not named and any(device_of(run).startswith("cuda") for run in runs):
        sys.argv.append("hydra/launcher=basic")


def fit_memory(runs: Sequence[RunConfig], arguments: Sequence[str]) -> list[RunConfig]:
    """The runs with engine.micro_batch_prompts where it was left open; what is derived is said where it is less than
    the step, and told to Hydra.
    """
    import joblib

    from harness.planning.micro_batches import derived, derived_line, with_micro_batches

    at_once = min(len(runs), joblib.cpu_count()) if side_by_side([*arguments, *sys.argv]) else 1
    prompts = derived(runs, at_once)
    if prompts is None:
        return list(runs)
    if any(prompts < run.setting.prompts_per_step for run in runs):
        print(derived_line(runs, prompts, at_once), file=sys.stderr)
    sys.argv.append(f"engine.micro_batch_prompts={prompts}")
    return with_micro_batches(runs, prompts)


def side_by_side(arguments: Sequence[str]) -> bool:
    """Whether the launcher is the default, a run per core of this machine."""
    return not any(a == "hydra.mode=RUN" or a.partition("=")[0].endswith("hydra/launcher") for a in arguments)


def say_pairs(runs: Sequence[RunConfig], arguments: Sequence[str]) -> None:
    """What both models of every comparison make of each other, on stderr."""
    from harness.planning.pair_check import pair_lines

    trained = {repr(run.setting): run for run in sorted(runs, key=lambda run: run.method is not None)}
    for line in dict.fromkeys(line for run in trained.values() for line in pair_lines(run, arguments)):
        print(line, file=sys.stderr)


def compare_together(arguments: Sequence[str]) -> int:
    """One of several ranks: rank 0 does everything, the others train with it. Runs follow one another, whatever the
    launcher.
    """
    from harness.engines.checks import device_of
    from harness.planning.micro_batches import derived, with_micro_batches
    from harness.training import ranks
    from harness.training.rank_program import follow

    sys.argv.append("hydra/launcher=basic")
    runs = planned_runs(arguments)
    check_execution(runs)
    quiet_libraries()
    ranks.start(device_of(runs[0]))
    if any(run.engine.micro_batch_prompts is None for run in runs):  # all ranks cut a step alike
        prompts = ranks.from_main((derived(runs) or 1) if ranks.index() == 0 else None)
        runs, arguments = with_micro_batches(runs, prompts), [*arguments, f"engine.micro_batch_prompts={prompts}"]
        sys.argv.append(arguments[-1])
    if ranks.index() == 0:
        return compare(arguments)
    follow(runs)
    return 0


def add_untrained_rows(runs: Sequence[RunConfig]) -> None:
    """Every table needs the untouched student and the teacher, on the seeds of its runs; a narrowed sweep gets them
    here.
    """
    from harness.training.job import run_job

    for run in {(run.comparison_folder(), run.seed): run for run in runs}.values():
        for name in UNTRAINED:
            run_job(replace(run, method_name=name, method=None, fresh=False))


def report(runs: Sequence[RunConfig], command: str) -> int:
    """Builds, writes and prints the leaderboard of every comparison that was touched; 1 if a run failed or an
    expectation does not hold.
    """
    from harness.results.collect import load_records
    from harness.results.expectations import measure_expectations, parse_expectations, print_measured
    from harness.results.printing import print_leaderboard
    from harness.results.publish import rebuild_leaderboard

    ok = True
    for folder, run in {run.comparison_folder(): run for run in runs}.items():
        records = load_records(folder)
        protocols = scored_protocols(protocols_of(run), records)
        references = [run.reference] if run.reference else []
        order_by = run.evaluation.order_by
        board = rebuild_leaderboard(folder, command, protocols, references, order_by=order_by)
        own = dict.fromkeys(other.run_folder() for other in runs if other.comparison_folder() == folder)
        trained = {other.run_folder() for other in runs if other.method is not None}
        if sum(record.method not in UNTRAINED for record in records) > len(trained & set(own)):
            print(f"The table has every run of {folder}, those of other commands too.")
        print_leaderboard(board)
        for line in said_of_runs([path for path in own if (path / "record.json").exists()], losses=not protocols):
            print(line)
        print(f"\n{folder}/leaderboard.md\nnext: python -m harness.report {shlex.quote(str(folder))}")
        mine = {other.run_folder() for other in runs}
        ok &= all(_is_completed(path / "record.json") for path in mine)
        if run.expect:
            outcomes = measure_expectations(parse_expectations(run.expect, "expect"), folder, None, protocols)
            print_measured(outcomes)
            ok &= all(outcome.ok for outcome in outcomes)
    return 0 if ok else 1


def said_of_runs(folders: Sequence[Path], losses: bool) -> list[str]:
    """Lines under the table about the runs: how they trained, if nothing was scored, whether nearly all answers were
    cut off, and where one failed.
    """
    from harness.results.cut_off import scored_lines, trained_line
    from harness.results.losses import loss_lines

    lines = loss_lines(folders) if losses else []
    for folder in folders:
        record, label = load_record(folder / "record.json"), f"{folder.parent.name} {folder.name}"
        lines += [*trained_line(label, read_metrics(folder)), *scored_lines(label, record.evaluations)]
        if record.status != "completed" and (folder / "error.log").exists():
            lines.append(f"failed: {folder / 'error.log'} has the whole error")
    return lines


def scored_protocols(protocols: Mapping[str, str], records: Sequence[RunRecord]) -> dict[str, str]:
    """Those of the columns that a completed run has; of a task that was scored under none of them, all."""
    found = {(e.task, e.protocol_hash) for r in records for e in r.evaluations if r.status == "completed"}
    known = {task_of(column) for column, value in protocols.items() if (task_of(column), value) in found}
    scored = {task for task, _ in found}
    return {
        column: value
        for column, value in protocols.items()
        if (task := task_of(column)) in scored and (task not in known or (task, value) in found)
    }


def _is_completed(path: Path) -> bool:
    return path.exists() and load_record(path).status == "completed"


if __name__ == "__main__":
    sys.exit(main())

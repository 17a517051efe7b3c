"""`python -m harness.run`: a comparison is a Hydra sweep over methods x seeds, then the leaderboard.

Exit status: 0 all runs finished and every expectation holds; 1 a run failed, an expectation does not hold or the
leaderboard is broken; 2 bad input.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # runs use the cores side by side

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from harness import parent
from harness.config import CONF_DIR, RunConfig, register_methods, whole_number
from harness.errors import UserError
from harness.paths import check_writable
from harness.results.record import UNTRAINED, load_record

INFORMATION_FLAGS = {
    "--help",
    "-h",
    "--hydra-help",
    "--version",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--shell-completion",
    "-sc",
}


@hydra.main(version_base=None, config_path=str(CONF_DIR), config_name="config")
def hydra_job(cfg: DictConfig) -> None:
    """One run of the sweep, in whatever process the launcher chose."""
    from harness.job import run_job

    parent.follow()
    quiet_libraries()
    try:
        run_job(RunConfig.from_hydra(cfg))
    except UserError as error:  # the sweep goes on; the run is missing from the table, and the exit status says so
        print(f"error: {error}", file=sys.stderr)


def main() -> None:
    """The command."""
    register_methods_or_exit()
    arguments = sys.argv[1:]
    if INFORMATION_FLAGS & {argument.partition("=")[0] for argument in arguments}:
        hydra_job()
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # under `accelerate launch` or torchrun
        sys.exit(exit_code_of(lambda: compare_together(arguments)))
    sys.exit(exit_code_of(lambda: compare(arguments)))


def exit_code_of(command: Callable[[], int]) -> int:
    """Runs a command; bad input becomes one sentence on stderr and exit code 2."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on from here.", file=sys.stderr)
        return 130


def compare(arguments: Sequence[str]) -> int:
    """Checks the whole sweep before anything is trained, runs it, and prints the tables."""
    from harness.monitor import Monitor

    runs = plan(arguments)
    if any(run.dry_run for run in runs):
        from harness.dry_run import show_plan

        check_execution(runs)
        return show_plan(runs)
    check(runs)
    quiet_libraries()
    parent.lead()
    with Monitor([run.run_folder() for run in runs], Console(stderr=True)):
        hydra_job()
        add_untrained_rows(runs)
    return report(runs, shlex.join(["python", "-m", "harness.run", *arguments]))


def compare_together(arguments: Sequence[str]) -> int:
    """One of several ranks: rank 0 does everything, the others train with it. Runs follow one another, whatever the launcher."""
    from harness import ranks
    from harness.job import device_of

    sys.argv.append("hydra/launcher=basic")
    runs = plan(arguments)
    check_execution(runs)
    quiet_libraries()
    ranks.start(device_of(runs[0]))
    if ranks.index() == 0:
        return compare(arguments)
    ranks.follow(runs)
    return 0


def plan(arguments: Sequence[str]) -> list[RunConfig]:
    """Every run that Hydra will make of this command line, in its order."""
    try:
        with initialize_config_dir(str(CONF_DIR), version_base=None):
            parser = OverridesParser.create(GlobalHydra.instance().config_loader())  # which glob(*) looks options up in
            given = parser.parse_overrides(list(arguments))
            fixed = [str(override.input_line) for override in given if not override.is_sweep_override()]
            hydra_config = compose("config", overrides=fixed, return_hydra_config=True).hydra
            axes = {}
            if str(hydra_config.mode).endswith("MULTIRUN"):
                mentioned = {override.get_key_element() for override in given}
                defaults = [
                    f"{key}={value}" for key, value in hydra_config.sweeper.params.items() if key not in mentioned
                ]
                sweeps = [*parser.parse_overrides(defaults), *given]
                axes = {
                    o.get_key_element(): _values(o) for o in sweeps if o.is_sweep_override() or o.input_line in defaults
                }
            seeds = axes.pop("seed", None)  # composing takes a while, and a seed changes nothing else
            choices = itertools.product(*([f"{key}={value}" for value in values] for key, values in axes.items()))
            runs = [RunConfig.from_hydra(compose("config", overrides=[*fixed, *choice])) for choice in choices]
            return [replace(run, seed=whole_number("seed", s)) for run in runs for s in seeds] if seeds else runs
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # a ValueError: setting=null
        raise UserError(one_sentence(error)) from error
    finally:
        GlobalHydra.instance().clear()


def _values(override: Override) -> list[str]:
    return (
        list(override.sweep_string_iterator())
        if override.is_sweep_override()
        else [override.get_value_element_as_str()]
    )


def one_sentence(error: Exception, command: str = "harness.run") -> str:
    """What a Hydra message says, in one sentence: the unknown key, or the options that a group has."""
    text = str(error)
    if unknown := re.search(r"Could not override '([^']*)'", text):
        return (
            f"unknown key {unknown[1]!r}; `python -m {command} --help` shows the configuration "
            "(a new entry of a mapping such as evaluation.samples is given with ++key=value)."
        )
    if option := re.search(
        r"Could not find '([^']*)'.*?Available options in '([^']*)':\s*(.*?)\s*(?:\n\s*Config search|\Z)", text, re.S
    ):
        known = [name for name in option[3].split() if not name.startswith("_")]
        return f"there is no {option[1]!r}; known options of {option[2]}: {', '.join(known)}."
    if text.startswith("Config group override must be"):
        return "setting, engine, evaluation and experiment are chosen by a name, such as evaluation=none; null is none."
    return " ".join(text.split()) or type(error).__name__


def check(runs: Sequence[RunConfig]) -> None:
    """Everything that can be wrong with the input, found before the first run starts."""
    from harness.engines import check_logprobs, scores_by_vllm
    from harness.job import check_leftovers, check_pair

    check_execution(runs)
    seen: set[str] = set()
    for run in runs:
        if not run.fresh:
            check_leftovers(run.run_folder())
        if run.method is not None and scores_by_vllm(run.engine):
            whole = run.method.request(0.0).full_vocabulary or run.method.request(1.0).full_vocabulary
            check_logprobs(run.engine, run.setting.top_k, check_pair(run), whole)
        key = repr((run.setting, run.engine, run.evaluation, run.results_dir))
        if key in seen:
            continue
        seen.add(key)
        check_pair(run)
        _check_prompts(run)
        _check_one_engine(run, {other.run_folder() for other in runs if other.fresh})
        check_writable(run.results_dir)
        protocols_of(run)


def check_execution(runs: Sequence[RunConfig]) -> None:
    """What can be wrong with the engine's fields."""
    from harness.engines import check_execution as check_engine_fields
    from harness.trackers import check_trackers

    for run in runs:
        setting, engine = run.setting, run.engine
        check_engine_fields(engine, setting.dtype)
        processes = max(run.launch.num_processes, int(os.environ.get("WORLD_SIZE", "1")))
        if engine.name != "hf" and (processes > 1 or setting.lora_rank):
            raise UserError(f"engine={engine.name} trains in one process and without adapters; give engine=hf.")
        if setting.prompts_per_step % (engine.micro_batch_prompts * processes):
            ranks = f" times {processes} processes" if processes > 1 else ""
            raise UserError(
                f"engine.micro_batch_prompts={engine.micro_batch_prompts}{ranks} does not divide "
                f"setting.prompts_per_step={setting.prompts_per_step}; give a divisor."
            )
        check_trackers(engine.report_to)


def _check_one_engine(run: RunConfig, redone: set[Path]) -> None:
    """A table has one engine; found now, not when the runs are done."""
    for path in sorted(run.comparison_folder().glob("*/seed*/record.json")):
        engine = load_record(path).engine
        if path.parent not in redone and engine != run.engine.name:
            raise UserError(
                f"{path.parent} was made with engine={engine}, and a table has one engine: give engine={engine}, or another results_dir."
            )


def _check_prompts(run: RunConfig) -> None:
    from harness.models import load_tokenizer
    from harness.prompts import load_prompts

    setting = run.setting
    tokenizer = load_tokenizer(setting.student, setting.student_revision)
    load_prompts(setting.prompts, tokenizer, split=setting.prompts_split, max_tokens=setting.max_prompt_tokens)


def add_untrained_rows(runs: Sequence[RunConfig]) -> None:
    """Every table needs the untouched student and the teacher, on the seeds of its runs; a narrowed sweep gets them here."""
    from harness.job import run_job

    for run in {(run.comparison_folder(), run.seed): run for run in runs}.values():
        for name in UNTRAINED:
            run_job(replace(run, method_name=name, method=None, fresh=False))


def report(runs: Sequence[RunConfig], command: str) -> int:
    """Builds, writes and prints the leaderboard of every comparison that was touched; 1 if a run failed or an expectation does not hold."""
    from harness.leaderboard import rebuild_leaderboard
    from harness.results.collect import load_records
    from harness.results.expectations import check as check_expectations
    from harness.results.expectations import parse_expectations, print_outcomes
    from harness.results.render import print_leaderboard

    ok = True
    for folder, run in {run.comparison_folder(): run for run in runs}.items():
        records = load_records(folder)
        scored = {
            evaluation.task for record in records for evaluation in record.evaluations if record.status == "completed"
        }
        protocols = {task: value for task, value in protocols_of(run).items() if task in scored}
        print_leaderboard(rebuild_leaderboard(folder, command, protocols, [run.reference] if run.reference else []))
        print(f"\n{folder}/leaderboard.md")
        mine = {other.run_folder() for other in runs}
        ok &= all(_is_completed(path / "record.json") for path in mine)
        if run.expect:
            outcomes = check_expectations(parse_expectations(run.expect, "expect"), folder, None, protocols)
            print_outcomes(outcomes)
            ok &= all(outcome.ok for outcome in outcomes)
    return 0 if ok else 1


def _is_completed(path: Path) -> bool:
    return path.exists() and load_record(path).status == "completed"


def protocols_of(run: RunConfig) -> dict[str, str]:
    """The protocol hash of each of the run's tasks, the development task included."""
    from harness.evaluation.checkpoint import protocol_of
    from harness.models import load_tokenizer

    tokenizer = load_tokenizer(run.setting.student, run.setting.student_revision)
    development = [run.evaluation.dev_task] if run.evaluation.dev_task else []
    return {task: protocol_of(run.evaluation, task, tokenizer) for task in [*run.evaluation.tasks, *development]}


def quiet_libraries() -> None:
    """Libraries speak only when something is wrong."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=UserWarning)


def register_methods_or_exit() -> None:
    """The scan of baselines/; a broken file there is bad input."""

    def scan() -> int:
        register_methods()
        return 0

    code = exit_code_of(scan)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()

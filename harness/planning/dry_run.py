"""`python -m harness.run … dry_run=true`: checks a comparison's configuration and prints what it would do. Fetches
nothing, trains nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config.entries import for_task
from harness.config.identity import is_pinned
from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.evaluation.loading import read_data, task_folders
from harness.evaluation.options import check_options, options_of
from harness.files import locate
from harness.models.loading import load_tokenizer
from harness.models.pair import check_pair, ends_line
from harness.models.sizes import model_size
from harness.planning.estimate import gib, memory_of, parts_of, work_of
from harness.planning.micro_batches import derived, derived_line, with_micro_batches
from harness.planning.pair_check import pair_lines
from harness.results.flops import EQUAL_COST, training_flops
from harness.results.record import Counters
from harness.training.prompts import prompts_of
from harness.training.rows import kind_of
from tasks.data import HubSource, data_folder

GPU_FLOPS = 0.4 * 989e12  # per second: 40 % of an H100's dense bfloat16; sampling with a cache is slower


def show_plan(runs: Sequence[RunConfig], arguments: Sequence[str] = ()) -> int:
    """Prints the plan of every comparison among the runs; returns exit code 0. UserError for what
    is wrong with them.
    """
    by_comparison: dict[Path, list[RunConfig]] = {}
    for run in runs:
        by_comparison.setdefault(run.comparison_folder(), []).append(run)
    for comparison in by_comparison.values():
        print("\n".join(plan_lines(comparison, arguments)), end="\n\n")
    print("dry_run: nothing was fetched, trained or written.")
    return 0


def plan_lines(runs: Sequence[RunConfig], arguments: Sequence[str] = ()) -> list[str]:
    """The plan of one comparison."""
    first, setting = runs[0], runs[0].setting
    tasks = [*first.evaluation.tasks, *([first.evaluation.dev_task] if first.evaluation.dev_task else [])]
    check_options(first.evaluation)
    folders = task_folders(tasks)
    missing = [key for key, identity in setting.identities().items() if not is_pinned(identity)]
    lines = [
        f"Setting {setting.name}: {setting.student} taught by {setting.teacher}, engine {first.engine.in_words()}",
        *(f"  note: {note}" for note in setting.notes),
        f"Results: {first.comparison_folder()}"
        + (f" (another hash once {' and '.join(missing)} are there)" if missing else ""),
        *([f"Published rows: {first.reference}"] if first.reference else []),
        *row_lines(runs),
        *prompt_lines(max(runs, key=lambda run: run.method is not None), arguments),
        *step_lines(runs),
        *cost_lines(runs),
        "Evaluation: " + (", ".join(f"{task}{drawn(first, task)}" for task in tasks) or "none"),
    ]
    lines += missing_lines(first, folders)
    fetched = list(would_fetch(first, folders))
    return [*lines, "Would fetch: " + ("; ".join(fetched) or "nothing")]


def row_lines(runs: Sequence[RunConfig]) -> list[str]:
    """Which rows, on which seeds."""
    rows = dict.fromkeys(_label(run) for run in runs)
    seeds = dict.fromkeys(str(run.seed) for run in runs)
    trained = [run for run in runs if run.method is not None]
    return [f"Rows: {', '.join(rows)}", f"Seeds: {', '.join(seeds)}; {len(runs)} runs, {len(trained)} of them trained"]


def _label(run: RunConfig) -> str:
    changed = ", ".join(f"{key}={value}" for key, value in run.changed_knobs().items())
    return f"{run.method_name} ({changed})" if changed else run.method_name


def prompt_lines(run: RunConfig, arguments: Sequence[str]) -> list[str]:
    """How many prompts, if they and the tokenizer are here; checks them, and the pair, where they are."""
    setting = run.setting
    both = Path(locate(setting.student)).is_dir() and Path(locate(setting.teacher)).is_dir()
    if both:
        check_pair(run)
    kind = kind_of(setting.prompts)
    if kind in ("missing", "hub"):
        where = "not there yet: see python -m harness.prepare" if kind == "missing" else "on the Hub"
        return [*([ends_line(setting)] if both else []), f"Prompts: {setting.prompts}, {where}"]
    if not Path(locate(setting.student)).is_dir():
        return [f"Prompts: {setting.prompts}"]
    prompts = prompts_of(setting, load_tokenizer(setting.student, setting.student_revision))
    return [*(pair_lines(run, arguments) if both else []), f"Prompts: {len(prompts):,} of {setting.prompts}"]


def step_lines(runs: Sequence[RunConfig]) -> list[str]:
    """Tokens of a step, of a run and of the comparison; at most, since completions may end early."""
    setting = runs[0].setting
    tokens = setting.prompts_per_step * setting.samples_per_prompt * setting.max_new_tokens
    trained = sum(run.method is not None for run in runs)
    lines = [
        f"Step: {setting.prompts_per_step} prompts x {setting.samples_per_prompt} samples x "
        f"{setting.max_new_tokens:,} tokens = at most {tokens:,} completion tokens",
        f"Run: {setting.steps} steps, at most {tokens * setting.steps:,} tokens; all {trained}: "
        f"{tokens * setting.steps * trained:,}",
    ]
    if setting.budget is not None:
        unit, amount = setting.budget
        lines.append(f"Budget: setting.{unit}={amount:g} a run, within {EQUAL_COST - 1:.0%}; the steps are the most")
    if guided := dict.fromkeys(_label(run) for run in runs if run.method and run.method.needs_teacher_responses()):
        most = setting.steps * setting.prompts_per_step
        once = "for all seeds" if setting.teacher_responses == "shared" else "a seed, for all methods"
        lines.append(
            f"Teacher responses, made once {once}: one for each of at most {most:,} prompts a seed "
            f"({', '.join(guided)})"
        )
    return lines


def cost_lines(runs: Sequence[RunConfig]) -> list[str]:
    """Memory and floating-point operations, where the models' sizes are known."""
    setting = runs[0].setting
    sizes = [
        model_size(setting.student, setting.student_revision),
        model_size(setting.teacher, setting.teacher_revision),
    ]
    if sizes[0] is None or sizes[1] is None:
        unknown = setting.student if sizes[0] is None else setting.teacher
        return [f"Memory and work: not known before {unknown} has been fetched"]
    student, teacher = sizes[0], sizes[1]
    prompts = derived(runs)
    derived_here = [line] if (line := derived_line(runs, prompts)) else []
    planned = with_micro_batches(runs, prompts)
    peaks = [memory_of(run, student, teacher, work_of(run, run.launch.num_processes)) for run in planned]
    memory = max(peaks, key=lambda peak: (peak.total, peak.extra))
    flops = training_flops(student.parameters, teacher.parameters, most_tokens(runs[0]))
    flops = min(flops, setting.operations or flops)
    trained = sum(run.method is not None for run in runs)
    work = f"Work: at most {flops:.2g} FLOP a run, {flops * trained:.2g} in all (prompts and attention not counted)"
    if setting.dtype == "bfloat16":
        work += f"; {flops * trained / GPU_FLOPS / 3600:,.0f} GPU hours at {GPU_FLOPS / 1e12:.0f} TFLOP/s"
    return [
        f"Models: {student.parameters:,} + {teacher.parameters:,} parameters",
        f"Memory of a rank, GiB: {gib(memory.total)}: {parts_of(memory)}; {memory.binding} binds",
        *derived_here,
        work,
    ]


def most_tokens(run: RunConfig) -> Counters:
    """The counters of a run whose every completion is written by the student and has full length."""
    setting = run.setting
    tokens = setting.steps * setting.prompts_per_step * setting.samples_per_prompt * setting.max_new_tokens
    return Counters(steps=setting.steps, student_tokens=tokens, scored_tokens=tokens)


def drawn(run: RunConfig, task: str) -> str:
    """` x32 under greedy and paper`: how many samples a problem gets and how they are decoded, where the configuration
    says it.
    """
    evaluation = run.evaluation
    number = for_task(evaluation.samples, task)
    samples = f" x{number}" if number else ""
    decodings = evaluation.decodings_of(task) if task in evaluation.tasks else []
    return samples + (f" under {' and '.join(decodings)}" if decodings else "")


def missing_lines(run: RunConfig, folders: Mapping[str, str]) -> list[str]:
    """What the tasks need and this machine has not: files of a local data folder, and resources such as NLTK's data.
    What comes from the Hub is not looked at.
    """
    evaluation = run.evaluation
    local = data_folder(evaluation.data_dir) is not None
    missing: dict[str, None] = {}
    for task, folder in folders.items():
        try:
            if local:
                read_data(task, options_of(evaluation, task)[0])
            elif check := _of_data_module(folder, "require_nltk_data"):
                check(None)
        except UserError as error:
            missing[f"Missing: {error}"] = None
    return list(missing)


def _of_data_module(folder: str, name: str) -> Any:
    """An entry of a task's data module; None where it has no such thing."""
    try:
        return getattr(importlib.import_module(f"tasks.{folder}.data"), name, None)
    except ModuleNotFoundError:
        return None


def would_fetch(run: RunConfig, folders: dict[str, str]) -> Iterator[str]:
    """Everything that is not on this machine, as Hub ids with their revision."""
    setting = run.setting
    for name, revision in ((setting.student, setting.student_revision), (setting.teacher, setting.teacher_revision)):
        if not Path(locate(name)).is_dir():
            yield f"model {name}@{revision or 'main'}"
    if kind_of(setting.prompts) == "hub":
        yield f"data {setting.prompts} ({setting.prompts_split})"
    if data_folder(run.evaluation.data_dir) is None:
        yield from dict.fromkeys(source for folder in folders.values() for source in hub_sources(folder))


def hub_sources(folder: str) -> list[str]:
    """The Hub data sets that a task's folder names, with their revision; none where its data lie beside it."""
    sources: list[str] = []
    for module in ("data", "problems"):
        try:
            names = vars(importlib.import_module(f"tasks.{folder}.{module}"))
        except ModuleNotFoundError:
            continue
        found = [value for value in names.values() if isinstance(value, HubSource)]
        sources += [f"data {source.id}@{source.revision or 'main'}" for source in found[:1]]
        if not found and "HUB_ID" in names:
            sources.append(f"data {names['HUB_ID']}@{names.get('HUB_REVISION') or 'main'}")
    return sources

"""Everything that can be wrong with a comparison, found before its first run starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.files import check_writable, locate
from harness.results.record import RunRecord, load_record, read_metrics
from harness.results.samples import read_samples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.evaluation.loading import LoadedTask
    from harness.training.prompts import Prompt


def check_comparison(runs: Sequence[RunConfig]) -> None:
    """Everything that can be wrong with the input, found before the first run starts; doubts are printed to stderr."""
    from harness.engines.checks import check_devices, check_logprobs
    from harness.models.loading import load_tokenizer
    from harness.models.pair import check_pair
    from harness.training.held_out import held_out_prompts
    from harness.training.mechanisms import check_references, doubts
    from harness.training.prompts import prompt_doubts, prompts_of

    check_execution(runs)
    for run in runs:
        check_devices(run.engine)
    check_local(runs)
    # by Setting: the student's tokenizer, and what it makes
    inputs: dict[str, tuple[PreTrainedTokenizerBase, list[Prompt]]] = {}
    vocab_sizes: dict[str, int] = {}
    warnings: dict[str, None] = {}
    seen: set[str] = set()
    for run in runs:
        setting = run.setting
        if repr(setting) not in inputs:
            vocab_sizes[repr(setting)] = check_pair(run)
            tokenizer = load_tokenizer(setting.student, setting.student_revision)
            inputs[repr(setting)] = (tokenizer, prompts_of(setting, tokenizer))
            warnings |= dict.fromkeys(_teacher_template(run, tokenizer))
            warnings |= dict.fromkeys(prompt_doubts(setting.prompts, inputs[repr(setting)][1]))
        vocab_size = vocab_sizes[repr(setting)]
        warnings |= dict.fromkeys(doubts(run, vocab_size))
        check_references(run, *inputs[repr(setting)])
        _check_contexts(run, inputs[repr(setting)][1])
        if not run.fresh:
            check_leftovers(run.run_folder())
        if run.method is not None and run.engine.who("teacher") != "hf":
            whole = run.method.request(0.0).full_vocabulary or run.method.request(1.0).full_vocabulary
            check_logprobs(run.engine, setting.top_k, vocab_size, whole)
        key = repr((setting, run.engine, run.evaluation, run.results_dir))
        if key in seen:
            continue
        seen.add(key)
        beside = _records_beside(run, {other.run_folder() for other in runs if other.fresh})
        _check_one_engine(run, beside)
        check_writable(run.results_dir)
        _check_evaluation(run, beside)
        if run.evaluation.distance is not None and run.evaluation.distance.task is not None:
            held_out_prompts(run, run.evaluation.distance, inputs[repr(setting)][0])
    for warning in warnings:
        print(f"warning: {warning}.", file=sys.stderr)


def check_local(runs: Sequence[RunConfig]) -> None:
    """Where something is to come from the Hub: what is wrong with local prompts and data is said before it is asked."""
    from harness.evaluation.loading import read_data
    from harness.evaluation.options import options_of
    from harness.models.hub import use_cache_if_unreachable
    from harness.training.conversations import example_of
    from harness.training.rows import kind_of, read_rows
    from tasks.data import data_folder

    settings = {repr(run.setting): run.setting for run in runs}.values()
    models = {name for setting in settings for name in (setting.student, setting.teacher)}
    sources = {(setting.prompts, setting.prompts_split) for setting in settings}
    from_hub = [source for source, _ in sources if kind_of(source) == "hub"]
    from_hub += [name for name in models if not Path(locate(name)).is_dir()]
    if not from_hub:
        return
    for source, split in sources:
        if kind_of(source) != "hub":
            for place, row in read_rows(source, split):
                example_of(row, place)
    for evaluation in {repr(run.evaluation): run.evaluation for run in runs}.values():
        for task in evaluation.tasks if data_folder(evaluation.data_dir) is not None else []:
            read_data(task, options_of(evaluation, task)[0])
    use_cache_if_unreachable()


def check_execution(runs: Sequence[RunConfig]) -> None:
    """What can be wrong with the engine's fields."""
    from harness.engines.checks import KEYS, check_engine_options
    from harness.results.reference import reference_tables
    from harness.training import ranks
    from harness.training.mechanisms import check_budget, check_guidance
    from harness.training.trackers import check_trackers

    for run in runs:
        setting, engine = run.setting, run.engine
        others = [f"{KEYS[role]}={engine.who(role)}" for role in ("student", "teacher") if engine.who(role) != "hf"]
        if others and setting.termination == "map":
            raise UserError(
                f"{others[0]} can neither draw nor score several end tokens as one: give engine=hf with "
                "setting.termination=map."
            )
        check_engine_options(engine, setting.dtype)
        check_guidance(run)
        check_budget(run)
        processes = max(run.launch.num_processes, int(os.environ.get("WORLD_SIZE", "1")))
        if processes > 1:
            ranks.check_ranks(run)
        if setting.prompts_per_step % ((engine.micro_batch_prompts or 1) * processes):
            several = f" times {processes} processes" if processes > 1 else ""
            given = f"engine.micro_batch_prompts={engine.micro_batch_prompts}{several}"
            what = given if engine.micro_batch_prompts else f"launch.num_processes={processes}"
            raise UserError(
                f"{what} does not divide setting.prompts_per_step={setting.prompts_per_step}; give a divisor."
            )
        check_trackers(engine.report_to)
        if run.reference not in (None, *reference_tables()):
            raise UserError(f"reference={run.reference!r}: must be one of {', '.join(reference_tables())}, or null.")


def _records_beside(run: RunConfig, redone: set[Path]) -> dict[Path, RunRecord]:
    """Folder -> record, of the runs that will stand in one table with this one, but for those that begin again."""
    paths = sorted(run.comparison_folder().glob("*/seed*/record.json"))
    return {path.parent: load_record(path) for path in paths if path.parent not in redone}


def _check_one_engine(run: RunConfig, beside: Mapping[Path, RunRecord]) -> None:
    """What a table trains on was written by one engine, and scored by one; found now, not when the runs are done."""
    chosen = {"engine": run.engine.who("student"), "engine.teacher": run.engine.who("teacher")}
    for folder, record in beside.items():
        made = {"engine": record.engine, "engine.teacher": record.teacher_engine or chosen["engine.teacher"]}
        for key, engine in made.items():
            if record.is_trained and engine != chosen[key]:
                raise UserError(
                    f"{folder} was made with {key}={engine}, and a table has one engine: give {key}={engine}, or "
                    "another results_dir."
                )


def _teacher_template(run: RunConfig, student: PreTrainedTokenizerBase) -> Iterator[str]:
    """Says where the teacher was trained on prompts of another form than those that it is to score."""
    from harness.models.loading import load_tokenizer
    from harness.models.template import template_difference

    setting = run.setting
    teacher = load_tokenizer(setting.teacher, setting.teacher_revision)
    if difference := template_difference(student, teacher, setting.chat_template_kwargs or {}):
        yield f"the teacher scores prompts that its own chat template would write in another way: {difference}"


def _check_contexts(run: RunConfig, prompts: Sequence[Prompt]) -> None:
    """UserError where what the run writes or scores does not fit into a model; found now, not at its step."""
    from harness.models.pair import check_contexts
    from harness.training.mechanisms import writers_of

    if run.method is None:
        return
    whole = [len(prompt.ids) + len(prompt.reference_ids or ()) for prompt in prompts]
    lengths = {prompt.prompt_id: len(prompt.ids) for prompt in prompts}
    check_contexts(run, lengths, max(whole) if "reference" in writers_of(run) else 0)


def check_leftovers(folder: Path) -> None:
    """Reads what an earlier attempt left; a file that cannot be gone on with is a UserError that
    names it and its line.
    """
    from harness.config.identity import model_identity
    from harness.evaluation.checkpoint import check_rows, check_weights

    if (folder / "record.json").exists():
        record = load_record(folder / "record.json")
        if (folder / "checkpoint").exists():
            check_weights(record, model_identity(str(folder / "checkpoint"), None), folder)
    read_metrics(folder)
    read_samples(folder)
    check_rows(folder)


def protocols_of(run: RunConfig) -> dict[str, str]:
    """The protocol hash of each column of the run's tasks, the development task included."""
    return {name: task.protocol_hash for name, task in _tasks_of(run)[0].items()}


def _tasks_of(run: RunConfig) -> tuple[dict[str, LoadedTask], PreTrainedTokenizerBase]:
    """With the tokenizer that renders their prompts."""
    from harness.evaluation.checkpoint import load_configured, load_development
    from harness.models.loading import load_tokenizer

    tokenizer = load_tokenizer(run.setting.student, run.setting.student_revision)
    loaded = load_configured(run.evaluation, run.evaluation.tasks, tokenizer)
    return loaded | load_development(run.evaluation, tokenizer), tokenizer


def _check_evaluation(run: RunConfig, beside: Mapping[Path, RunRecord]) -> None:
    """What would end an evaluation, or break its table, is found now, not when the run is trained; both models are rows
    of the table.
    """
    from harness.evaluation.checkpoint import check_drawn, check_plan
    from harness.models.contexts import context_length_of
    from harness.models.loading import load_config

    setting = run.setting
    sides = ((setting.student, setting.student_revision), (setting.teacher, setting.teacher_revision))
    tasks, tokenizer = _tasks_of(run)
    for folder, record in beside.items():
        check_drawn(record, tasks, run.engine.who("evaluation"), folder)
    longest = min(context_length_of(load_config(*side)) for side in sides)
    check_plan(run.evaluation, tasks, tokenizer, max_length=longest)

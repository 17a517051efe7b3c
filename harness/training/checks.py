"""Everything that can be wrong with a comparison, found before its first run starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.files import check_writable
from harness.results.record import load_record


def check_comparison(runs: Sequence[RunConfig]) -> None:
    """Everything that can be wrong with the input, found before the first run starts."""
    from harness.engines.checks import check_logprobs, scores_by_vllm
    from harness.models.pair import check_pair

    check_execution(runs)
    seen: set[str] = set()
    for run in runs:
        if not run.fresh:
            check_leftovers(run.run_folder())
        if run.method is not None and scores_by_vllm(run.engine):
            whole = run.method.request(0.0).full_vocabulary or run.method.request(1.0).full_vocabulary
            check_logprobs(run.engine, run.setting.top_k, check_pair(run), whole)
        key = repr((run.setting, run.engine, run.evaluation, run.results_dir, _trained_on(run)))
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
    from harness.engines.checks import check_engine_options
    from harness.results.reference import reference_tables
    from harness.training.trackers import check_trackers

    for run in runs:
        setting, engine = run.setting, run.engine
        check_engine_options(engine, setting.dtype)
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
        if run.reference not in (None, *reference_tables()):
            raise UserError(f"reference={run.reference!r}: must be one of {', '.join(reference_tables())}, or null.")


def _check_one_engine(run: RunConfig, redone: set[Path]) -> None:
    """A table has one engine; found now, not when the runs are done."""
    for path in sorted(run.comparison_folder().glob("*/seed*/record.json")):
        engine = load_record(path).engine
        if path.parent not in redone and engine != run.engine.name:
            raise UserError(
                f"{path.parent} was made with engine={engine}, and a table has one engine: give engine={engine}, or another results_dir."
            )


def _check_prompts(run: RunConfig) -> None:
    from harness.models.loading import load_tokenizer
    from harness.models.pair import check_contexts
    from harness.training.prompts import load_prompts

    setting = run.setting
    tokenizer = load_tokenizer(setting.student, setting.student_revision)
    prompts = load_prompts(
        setting.prompts, tokenizer, split=setting.prompts_split, max_tokens=setting.max_prompt_tokens
    )
    if (trained_on := _trained_on(run)) != "nothing":
        whole = [len(prompt.ids) + len(prompt.reference_ids or ()) for prompt in prompts]
        lengths = {prompt.prompt_id: len(prompt.ids) for prompt in prompts}
        check_contexts(run, lengths, max(whole) if trained_on == "references" else 0)


def _trained_on(run: RunConfig) -> str:
    """nothing, samples, or references (too)."""
    if run.method is None:
        return "nothing"
    draws = [(progress, uniform) for progress in (0.0, 0.5, 1.0) for uniform in (0.0, 0.5, 0.999)]
    return "references" if any(run.method.completions(*draw) == "reference" for draw in draws) else "samples"


def check_leftovers(folder: Path) -> None:
    """Reads what an earlier attempt left; a file that cannot be gone on with is a UserError that names it and its line."""
    from harness.evaluation.checkpoint import check_rows
    from harness.training.recorder import read_metrics, read_samples

    if (folder / "record.json").exists():
        load_record(folder / "record.json")
    read_metrics(folder)
    read_samples(folder)
    check_rows(folder)


def protocols_of(run: RunConfig) -> dict[str, str]:
    """The protocol hash of each of the run's tasks, the development task included."""
    from harness.evaluation.checkpoint import protocol_of
    from harness.models.loading import load_tokenizer

    tokenizer = load_tokenizer(run.setting.student, run.setting.student_revision)
    development = [run.evaluation.dev_task] if run.evaluation.dev_task else []
    return {task: protocol_of(run.evaluation, task, tokenizer) for task in [*run.evaluation.tasks, *development]}

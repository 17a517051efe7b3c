"""`python -m harness.evaluate checkpoint=<folder or Hub id> evaluation=<protocol>`: scores any checkpoint, ours or not.

    python -m harness.evaluate checkpoint=Qwen/Qwen3-1.7B evaluation=qwen3
    python -m harness.evaluate checkpoint=results/tiny_cpu-<hash8>/tropd/seed0/checkpoint 'evaluation.tasks=[gsm8k]'
    python -m harness.evaluate experiment=validate_evaluators dry_run=true

A checkpoint that a comparison made (`<run>/checkpoint`) gets its scores into that run's record, so that the
comparison's table has them, unless `name=…` asks for a row of its own: so it may be scored by another engine too. Any
other gets `results/evaluated-<hash8>/<name>/seed<k>/record.json`, and `python -m
harness.leaderboard results/evaluated-<hash8>` makes the table; the hash is of the chat template, because the prompts as
the model sees them belong to a protocol. Beside the record: items.jsonl, texts.jsonl, generations.jsonl and lm-eval's
own results in lm_eval/. Running again skips finished tasks; an interrupted one goes on with the samples that it has.
Exit status: 0, 1 if a model of a validation could not be scored, 2 bad input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hydra import compose
from omegaconf import OmegaConf

from harness.config.comments import task_names
from harness.config.entries import for_task
from harness.config.mistakes import check_form
from harness.config.settings import CONF_DIR
from harness.config.sweep import composing, quoted
from harness.console.commands import asks_for_help, exit_code_of, quiet_libraries, stop_if_interrupted
from harness.console.waiting import waiting
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.evaluation.standalone import EvaluateConfig
    from harness.evaluation.validation import ValidationEntry

KEYS = {"checkpoint", "revision", "name", "dtype", "seed", "results_dir", "fresh", "dry_run", "limit"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)

    def command() -> int:
        if asks_for_help(given):
            print(__doc__)
            print((CONF_DIR / "evaluate.yaml").read_text(encoding="utf-8"))
            print(f"evaluation.tasks: a list of {', '.join(task_names())}")
            return 0
        return _run(given)

    return exit_code_of(command)


def _run(arguments: Sequence[str]) -> int:
    raw = _composed(arguments)
    with waiting("loading libraries") as say:
        quiet_libraries()

        from harness.evaluation.standalone import EvaluateConfig, score_checkpoint
        from harness.evaluation.summary import print_scores
        from harness.evaluation.validation import entries_of

        if raw["validate"]:
            say("")
            return _validate(arguments, entries_of(raw["validate"]), raw["dry_run"])
        config = EvaluateConfig.from_raw(raw)
        if config.dry_run:
            say("")
            _print_plan(config)
            return 0
        stop_if_interrupted()
        folder, record, evaluations = score_checkpoint(config, say)
    print_scores(f"{record.label}, seed {record.seed}", evaluations, config.evaluation.cut_decimals)
    print(f"{folder}/record.json")
    return 0


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of a command line, as plain values."""
    check_form(overrides)
    with composing("harness.evaluate"):
        raw = OmegaConf.to_container(compose("evaluate", overrides=quoted(overrides)), resolve=True)
    assert isinstance(raw, dict)
    if set(raw) - KEYS - {"engine", "evaluation", "validate", "experiment"}:
        raise UserError("this experiment trains: it belongs to `python -m harness.run`.")
    return {str(key): value for key, value in raw.items()}


def _print_plan(config: EvaluateConfig, published: dict[str, float] | None = None) -> None:
    """What would be done, from the configuration and the tasks' files: nothing is loaded or fetched."""
    from harness.evaluation.options import check_options

    evaluation = config.evaluation
    check_options(evaluation)
    engine = config.engine.who("evaluation")
    print(f"{config.checkpoint}, revision {config.revision or 'main'}, {config.dtype}, engine {engine}")
    for task in evaluation.tasks:
        samples, longest = for_task(evaluation.samples, task), for_task(evaluation.max_new_tokens, task)
        parts = [*([f"the first {evaluation.limit} problems"] if evaluation.limit else [])]
        parts.append(f"{samples} samples a problem" if samples else "its own samples")
        if longest:
            parts.append(f"at most {longest:,} tokens each")
        if sampling := {**evaluation.sampling.get("all", {}), **evaluation.sampling.get(task, {})}:
            parts.append(", ".join(f"{key} {value}" for key, value in sampling.items()))
        if decodings := evaluation.decodings_of(task):
            parts.append(f"under {', '.join(decodings)}")
        if published:
            parts.append(f"published {published[task]:.2f} %")
        print(f"  {task}: {'; '.join(parts)}")


def _validate(arguments: Sequence[str], entries: Sequence[ValidationEntry], dry_run: bool) -> int:
    """Scores public models under the protocols of their published scores; 1 if one of them could not be scored."""
    from harness.evaluation.standalone import EvaluateConfig, score_checkpoint
    from harness.evaluation.summary import print_validation
    from harness.evaluation.validation import ValidatedTask, published_scores

    kept = [argument for argument in arguments if not argument.startswith(("experiment=", "+experiment="))]
    outcomes: list[ValidatedTask] = []
    cut_decimals: dict[str, Sequence[str]] = {}
    for entry in entries:
        tasks = f"evaluation.tasks=[{','.join(entry.tasks)}]"
        revision = entry.revision or "null"
        raw = _composed(
            [*kept, f"evaluation={entry.evaluation}", tasks, f"checkpoint={entry.checkpoint}", f"revision={revision}"]
        )
        config = EvaluateConfig.from_raw(raw)
        cut_decimals[entry.evaluation] = config.evaluation.cut_decimals
        cells = published_scores(entry)
        if dry_run:
            _print_plan(config, {task: cells[task].value for task in entry.tasks})
            continue
        try:
            scores, reason = {row.task: row for row in score_checkpoint(config)[2]}, ""
        except UserError as error:  # a gated set, a model that is not there: the others are scored all the same
            scores, reason = {}, str(error)
        outcomes += [
            ValidatedTask(entry=entry, task=task, published=cells[task], ours=scores.get(task), reason=reason)
            for task in entry.tasks
        ]
    if dry_run:
        return 0
    print_validation(outcomes, cut_decimals)
    return int(any(outcome.ours is None for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())

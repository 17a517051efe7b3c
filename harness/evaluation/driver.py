"""Runs tasks on a model and returns their rows.

A task is an lm-eval YAML under `tasks/`; its `process_results` returns, besides the metrics, `correct` and
`extracted` of every sample (tasks.sample_metrics), and the rows are made of those.

lm-eval's `simple_evaluate` is avoided on purpose: it seeds the global generators of random, numpy and torch, which
would change a training that is evaluated half-way, and spends seconds on describing the machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.evaluation.journal import SampleJournal
from harness.evaluation.loading import TASKS_DIR, LoadedTask, TaskOptions, load_tasks, unobtrusive_lm_eval
from harness.results.record import Evaluation, ItemRow
from harness.rollout import Progress, RolloutEngine
from tasks.sample_metrics import GRADERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.evaluation.lm import EngineLM


@dataclass(frozen=True)
class TaskResult:
    """One task's outcome: its row, and what the row was computed from."""

    evaluation: Evaluation
    items: list[ItemRow]  # a row per problem and sample
    texts: list[dict[str, Any]]  # keyed like items: text (None: private), extracted
    lm_eval: dict[str, Any]  # lm-eval's own results of the task: results, configs, versions, n-samples and so on

    @property
    def metrics(self) -> dict[str, float]:
        """The task's metrics: avg_at_k, pass_at_k, maj_at_k where the task votes, and those of its own."""
        return self.evaluation.metrics


def evaluate(
    engine: RolloutEngine,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    *,
    run_seed: int,
    max_length: int,
    samples: int | None = None,
    data_dir: str | None = None,
    limit: int | None = None,
    generation: Mapping[str, Any] | None = None,
    stop_ids: Sequence[int] | None = None,
    quiet: bool = False,
    progress: Progress | None = None,
    journal: SampleJournal | None = None,
    keep_private_texts: bool = False,
    grader: str = GRADERS[0],
    tasks_dir: Path = TASKS_DIR,
) -> list[TaskResult]:
    """Evaluates the engine's model on `tasks`, in their order.

    Args:
        run_seed: the seed of the run that made the model; with task, problem and repeat it decides every sample. The
            method is no coordinate, so that methods are compared on the same random numbers.
        max_length: positions of the model. A completion may fill what the prompt leaves; a prompt is never shortened.
        samples: per problem; None: as many as each task's file says.
        data_dir: folder with `<task>/test.jsonl` for the tasks whose data are not beside them.
        limit: the first problems only, for trying things out.
        generation: replaces entries of every task's generation_kwargs, e.g. {"max_gen_toks": 512}. Like samples and
            limit it is part of the protocol hash.
        stop_ids: end tokens; None: the tokenizer's.
        quiet: no progress bars. progress: called with the number of tokens written since the last call.
        journal: samples that are in it are not generated again, and finished ones are added to it.
        keep_private_texts: give the texts of tasks with `keep_texts_private` too: sets that are gated, or that may not end
            up in training data. A response repeats its question.
        grader: whose verdicts count on tasks that both graders grade: strict or official.
    """
    if not tasks:
        return []
    from lm_eval.evaluator import evaluate as run_lm_eval

    from harness.evaluation.lm import EngineLM

    options = TaskOptions(samples, data_dir, limit, generation, grader, tasks_dir)
    loaded = load_tasks(tasks, tokenizer, options)
    lm = EngineLM(
        engine,
        tokenizer,
        run_seed=run_seed,
        max_length=max_length,
        stop_ids=stop_ids,
        quiet=quiet,
        progress=progress,
        journal=journal,
    )
    with unobtrusive_lm_eval():
        results = run_lm_eval(
            lm=lm,
            task_dict={"tasks": {name: task.task for name, task in loaded.items()}},
            samples=None if limit is None else {name: _first(task, limit) for name, task in loaded.items()},
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=tokenizer.chat_template is not None,
            fewshot_as_multiturn=True,
        )
    assert results is not None  # None on ranks other than 0; there is one rank
    return [_task_result(name, loaded[name], results, lm, keep_private_texts) for name in tasks]


def protocol_hashes(
    tasks: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    samples: int | None = None,
    data_dir: str | None = None,
    limit: int | None = None,
    generation: Mapping[str, Any] | None = None,
    grader: str = GRADERS[0],
    tasks_dir: Path = TASKS_DIR,
) -> dict[str, str]:
    """The protocol hash of every task, as `evaluate` would write it, without running a model."""
    options = TaskOptions(samples, data_dir, limit, generation, grader, tasks_dir)
    return {name: task.protocol_hash for name, task in load_tasks(tasks, tokenizer, options).items()}


def _first(loaded: LoadedTask, problems: int) -> list[int]:
    """The documents of the first problems."""
    return list(range(min(problems * loaded.documents_per_problem, len(loaded.task.eval_docs))))


def _task_result(
    name: str, loaded: LoadedTask, results: Mapping[str, Any], lm: EngineLM, keep_private_texts: bool
) -> TaskResult:
    """Joins lm-eval's log of samples with what the LM remembers of them."""
    from harness.evaluation.lm import item_id, repeat_of

    items: list[ItemRow] = []
    texts: list[dict[str, Any]] = []
    votes: list[Any] = []
    majority: list[int] = []
    for row in sorted(results["samples"][name], key=lambda row: row["doc_id"]):
        if not {"correct", "extracted"} <= row.keys():
            raise UserError(
                f"Task {name} does not report its samples: its process_results must return `correct` and `extracted`."
            )
        drawn = zip(lm.samples[name, row["doc_id"]], row["correct"], row["resps"][0], row["extracted"], strict=True)
        for index, (sample, correct, text, extracted) in enumerate(drawn):
            items.append(
                ItemRow(
                    task=name,
                    protocol_hash=loaded.protocol_hash,
                    item_id=item_id(row["doc"], row["doc_id"]),
                    repeat=repeat_of(row["doc"], index),
                    correct=float(correct),
                    tokens=sample.tokens,
                    stop_reason=sample.stop_reason,
                )
            )
            kept = text if keep_private_texts or not loaded.private else None
            texts.append({**_key(items[-1]), "text": kept, "extracted": extracted})
        votes += row.get("votes", [])
        majority += [int(row["maj_at_k"])] if "maj_at_k" in row else []
    metrics = _plain_metrics(results["results"][name])
    if loaded.documents_per_problem > 1:  # lm-eval knows documents, and here each repeat is one
        majority = _majority(items, votes, loaded.samples)
        metrics["pass_at_k"] = _pass_at_k(items, loaded.samples)
        metrics |= {"maj_at_k": sum(majority) / len(majority)} if majority else {}
    own = {key: {name: part[name]} for key, part in results.items() if key != "samples" and name in part}
    return TaskResult(_evaluation(name, loaded, items, metrics, majority), items, texts, own)


def _pass_at_k(items: Sequence[ItemRow], k: int) -> float:
    problems = [items[i : i + k] for i in range(0, len(items), k)]
    return sum(any(row.correct for row in samples) for samples in problems) / len(problems)


def _majority(items: Sequence[ItemRow], votes: Sequence[Any], k: int) -> list[int]:
    """Whether the most frequent answer of each problem is right; nothing for a task that does not vote.

    `votes` names what each sample chose, whatever letter it had; None: nothing. The option given first wins a tie.
    """
    if len(votes) != len(items):
        return []
    won = []
    for samples in (range(i, i + k) for i in range(0, len(items), k)):
        counts = Counter(votes[i] for i in samples if votes[i] is not None)
        best = max(counts, key=counts.__getitem__, default=None)
        won.append(int(best is not None and next(items[i].correct for i in samples if votes[i] == best)))
    return won


def _key(row: ItemRow) -> dict[str, Any]:
    """What a row is looked up by, in items.jsonl and in texts.jsonl."""
    return {
        "task": row.task,
        "protocol_hash": row.protocol_hash,
        "item_id": row.item_id,
        "repeat": row.repeat,
    }


def _evaluation(
    name: str, loaded: LoadedTask, items: Sequence[ItemRow], metrics: Mapping[str, float], majority: Sequence[int]
) -> Evaluation:
    """The row of a task; items are in the order of the documents, the repeats of a document side by side."""
    k = loaded.samples
    correct = tuple(int(sum(row.correct for row in items[i : i + k])) for i in range(0, len(items), k))
    return Evaluation(
        task=name,
        protocol_hash=loaded.protocol_hash,
        problems=len(correct),
        samples=k,
        score=sum(correct) / len(items),
        truncated_frac=sum(row.stop_reason == "length" for row in items) / len(items),
        mean_tokens=sum(row.tokens for row in items) / len(items),
        correct=correct,
        metrics=dict(sorted(metrics.items())),
        majority=tuple(majority) or None,
    )


def _plain_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """lm-eval's `name,filter` keys as plain names, without its (absent) standard errors."""
    return {
        key.partition(",")[0]: float(value)
        for key, value in metrics.items()
        if "," in key and "_stderr" not in key and isinstance(value, int | float)
    }

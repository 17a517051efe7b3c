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
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.evaluation.loading import LoadedTask, unobtrusive_lm_eval
from harness.evaluation.model import Drawing, EvaluatedModel
from harness.results.record import Evaluation, ItemRow

if TYPE_CHECKING:
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
    model: EvaluatedModel, tasks: Mapping[str, LoadedTask], drawing: Drawing, keep_private_texts: bool = False
) -> list[TaskResult]:
    """Evaluates a model on loaded tasks (harness.evaluation.loading), in their order.

    `keep_private_texts`: give the texts of tasks with `keep_texts_private` too: sets that are gated, or that may not
    end up in training data. A response repeats its question.
    """
    if not tasks:
        return []
    from lm_eval.evaluator import evaluate as run_lm_eval

    from harness.evaluation.lm import EngineLM

    lm = EngineLM(model, drawing)
    some = {name: task.documents for name, task in tasks.items() if task.documents is not None}
    with unobtrusive_lm_eval():
        results = run_lm_eval(
            lm=lm,
            task_dict={"tasks": {name: loaded.task for name, loaded in tasks.items()}},
            samples=some or None,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=model.tokenizer.chat_template is not None,
            fewshot_as_multiturn=True,
        )
    assert results is not None  # None on ranks other than 0; there is one rank
    return [
        _task_result(name, loaded, results, lm, keep_private_texts=keep_private_texts) for name, loaded in tasks.items()
    ]


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
                    task=loaded.label,
                    protocol_hash=loaded.protocol_hash,
                    item_id=item_id(row["doc"], row["doc_id"]),
                    repeat=repeat_of(row["doc"], index),
                    correct=float(correct),
                    tokens=sample.tokens,
                    stop_reason=sample.stop_reason,
                )
            )
            shown = keep_private_texts or not loaded.private
            texts.append({**_key(items[-1]), "text": text if shown else None, "extracted": extracted})
            if shown and items[-1].repeat == 0:
                texts[-1] |= _question(loaded, row, items[-1].item_id)
        votes += row.get("votes", [])
        majority += [int(row["maj_at_k"])] if "maj_at_k" in row else []
    metrics = _plain_metrics(results["results"][name])
    if loaded.documents_per_problem > 1:  # lm-eval knows documents, and here each repeat is one
        majority = _majority(items, votes, loaded.samples)
        metrics["pass_at_k"] = _pass_at_k(items, loaded.samples)
        metrics |= {"maj_at_k": sum(majority) / len(majority)} if majority else {}
    own = {key: {name: part[name]} for key, part in results.items() if key != "samples" and name in part}
    return TaskResult(_evaluation(loaded, items, metrics, majority=majority), items, texts, own)


def _question(loaded: LoadedTask, row: Mapping[str, Any], name: str) -> dict[str, str | None]:
    """What was asked, and the answer that lm-eval has for it; None where the task's target only names the problem."""
    target = str(row.get("target", ""))
    return {
        "problem": str(loaded.task.doc_to_text(row["doc"])),
        "reference": None if target in ("", name) else target,
    }


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
    loaded: LoadedTask, items: Sequence[ItemRow], metrics: Mapping[str, float], majority: Sequence[int]
) -> Evaluation:
    """The row of a task; items are in the order of the documents, the repeats of a document side by side."""
    k = loaded.samples
    correct = tuple(int(sum(row.correct for row in items[i : i + k])) for i in range(0, len(items), k))
    return Evaluation(
        task=loaded.label,
        protocol_hash=loaded.protocol_hash,
        problems=len(correct),
        samples=k,
        score=sum(correct) / len(items),
        truncated_frac=sum(row.stop_reason == "length" for row in items) / len(items),
        mean_tokens=sum(row.tokens for row in items) / len(items),
        correct=correct,
        metrics=dict(sorted(metrics.items())),
        majority=tuple(majority) or None,
        decoding=loaded.decoding,
    )


def _plain_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """lm-eval's `name,filter` keys as plain names, without its (absent) standard errors."""
    return {
        key.partition(",")[0]: float(value)
        for key, value in metrics.items()
        if "," in key and "_stderr" not in key and isinstance(value, int | float)
    }

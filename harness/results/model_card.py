"""The README.md of a checkpoint: what it is, how it scored and how to make it again, as a card of the Hugging Face Hub.

The checkpoint folder is then ready for the Hub's own library:
`AutoModelForCausalLM.from_pretrained(folder).push_to_hub(name)`, or `hf upload NAME folder`, which takes the card
along.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from harness.config.decodings import ORDER_BY
from harness.files import locate, write_text
from harness.results.columns import title_of
from harness.results.escape import code, markdown, one_line
from harness.results.markdown import table
from harness.results.record import Evaluation, RunRecord, engines_of, whole_task
from harness.results.render import NOTHING, ONE_SEED, format_interval
from harness.results.statistics import mean_interval, pass_at_k

CARD = "README.md"
_ACTIVE = re.compile(r"[\"$`\\!]")  # what a shell reads within double quotes
_PLAIN = re.compile(r"[\w./:+-]+")  # values that Hydra and a shell take without quotes


def write_card(folder: Path, record: RunRecord) -> None:
    """Writes `checkpoint/README.md` of a completed run where it is absent or not current; untrained rows have no
    checkpoint.
    """
    checkpoint = folder / "checkpoint"
    if record.status != "completed" or not checkpoint.is_dir():
        return
    content, path = str(build_card(record)), checkpoint / CARD
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        write_text(path, content)


def build_card(record: RunRecord) -> ModelCard:
    """The card of a run; a pure function of its record."""
    setting = record.setting
    hub = {key: str(setting[key]) for key in ("student", "prompts") if _is_hub_id(str(setting[key]))}
    data = ModelCardData(
        model_name=one_line(_name(record)),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["on-policy-distillation", one_line(record.method)],
        base_model=hub.get("student"),
        datasets=[hub["prompts"]] if "prompts" in hub else None,
        eval_results=[_eval_result(evaluation) for evaluation in record.evaluations] or None,
    )
    body = "\n\n".join(
        [f"# {markdown(_name(record))}", _summary(record), _scores(record), _settings(record), _again(record)]
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def _is_hub_id(name: str) -> bool:
    """Not a path; a card may name models and data sets of the Hub only."""
    return not Path(locate(name)).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def _name(record: RunRecord) -> str:
    return f"{record.setting['name']}, {record.label}, seed {record.seed}"


def _eval_result(evaluation: Evaluation) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type=evaluation.task,
        dataset_name=evaluation.task,
        metric_type="accuracy",
        metric_name=", ".join(filter(None, (f"avg@{evaluation.samples}", evaluation.decoding, "%"))),
        metric_value=round(100 * evaluation.score, 2),
    )


def _summary(record: RunRecord) -> str:
    setting = record.setting
    return (
        f"{code(str(setting['student']))}, distilled on its own samples from {code(str(setting['teacher']))} by the "
        f"method {code(record.method)}: {record.counters.steps} steps of {setting['prompts_per_step']} prompts × "
        f"{setting['samples_per_prompt']} samples, seed {record.seed}. One checkpoint of one seed: it says little "
        "about the method."
    )


def _scores(record: RunRecord) -> str:
    if not record.evaluations:
        return "## Scores\n\nNot evaluated."
    header = ["task", "problems × samples", "accuracy", "pass@k", "maj@k", "truncated", "protocol"]
    rows = []
    for e in record.evaluations:
        accuracy = format_interval(mean_interval([[count / e.samples for count in e.correct]]))
        passed = (
            format_interval(mean_interval(pass_at_k([e.correct], e.samples, e.samples))) if e.samples > 1 else NOTHING
        )
        voted = format_interval(mean_interval([e.majority])) if e.majority is not None and e.samples > 1 else NOTHING
        intervals = [text.rstrip(ONE_SEED) for text in (accuracy, passed, voted)]
        protocol = code(e.protocol_hash[:12])
        rows.append(
            [title_of(e.column), f"{e.problems} × {e.samples}", *intervals, f"{100 * e.truncated_frac:.1f}", protocol]
        )
    note = "In %, with the 95 % interval over problems, for this checkpoint only."
    return f"## Scores\n\n{note}\n\n{table(header, rows, 'lrrrrrl')}"


def _settings(record: RunRecord) -> str:
    provenance = record.provenance
    versions = ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items())
    dirty = ", with local changes" if provenance.get("dirty") else ""
    rows = {
        **{f"method.{key}": value for key, value in record.knobs.items()},
        **{f"setting.{key}": value for key, value in record.setting.items()},
        "training hash": record.training_hash,
        "engine": engines_of([record]),
        "commit": f"{provenance.get('commit') or 'unknown'}{dirty}",
        "versions": versions or "unknown",
        "hardware": provenance.get("hardware", "unknown"),
    }
    return f"## How it was made\n\n{table(['', ''], [(key, str(value)) for key, value in rows.items()])}"


def _again(record: RunRecord) -> str:
    """Everything by value: a YAML of the same name may have changed since."""
    decodings: dict[str, list[str]] = {}
    for evaluation in record.evaluations:
        decodings.setdefault(whole_task(evaluation.task), []).extend(filter(None, [evaluation.decoding]))
    overrides = [
        f"method={record.method}",
        *(_override(f"method.{key}", value) for key, value in record.changed_knobs.items()),
        "setting=custom",
        *(
            _override(f"setting.{key}", value)
            for key, value in record.setting.items()
            if key not in ("notes", "recipe")
        ),  # words only
        f"'evaluation.tasks=[{','.join(decodings)}]'",
        *(shlex.quote(f"++evaluation.decodings.{task}=[{','.join(names)}]") for task, names in decodings.items()),
        *_order(decodings.values()),
        f"seed={record.seed}",
        "hydra.mode=RUN",
    ]
    command = " \\\n    ".join(["python -m harness.run", *map(one_line, overrides)])
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return f"## Again\n\n{fence}bash\n{command}\n{fence}"


def _order(decodings: Iterable[Sequence[str]]) -> list[str]:
    """Several decodings need one that tables are ordered by."""
    others = [names[0] for names in decodings if len(names) > 1 and ORDER_BY not in names]
    return [f"evaluation.order_by={name}" for name in others[:1]]


def _override(key: str, value: Any) -> str:
    if isinstance(value, dict | list):
        return shlex.quote(f"{key}={_element(value)}")
    text = _plain(value)
    if _PLAIN.fullmatch(text):
        return f"{key}={text}"
    quoted = f"{key}='{text}'"
    return shlex.quote(quoted) if _ACTIVE.search(quoted) else f'"{quoted}"'


def _element(value: Any) -> str:
    """A value inside a mapping or a list, in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_element(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_element, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _plain(value)


def _plain(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

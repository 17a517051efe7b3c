"""Scores one checkpoint that no comparison of this command line made: where its rows go, and the work itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from harness.config.entries import as_entries
from harness.config.execution import Execution
from harness.config.identity import model_identity
from harness.config.settings import EvaluationConfig, strict
from harness.config.values import check_keys, folder_of, plain_name, whole_number
from harness.console.waiting import Say, silent
from harness.engines.backends import Source
from harness.engines.checks import check_devices, check_engine_options, device_name
from harness.engines.opening import open_engine
from harness.errors import UserError
from harness.evaluation.checkpoint import (
    CheckpointScoring,
    check_drawn,
    check_rows,
    evaluate_missing,
    evaluated_source,
    load_configured,
)
from harness.evaluation.loading import LoadedTask, longest_sequence
from harness.evaluation.model import EvaluatedModel
from harness.files import LOCK, check_writable, clear_folder, locate
from harness.models.backbone import check_decoder
from harness.models.hub import use_cache_if_unreachable
from harness.models.loading import load_config, load_tokenizer
from harness.models.pair import check_head
from harness.results.provenance import (
    collect_provenance,
    peak_gpu_memory_bytes,
    peak_memory_bytes,
    reset_peak_memory,
)
from harness.results.record import Evaluation, RunRecord, load_record, utc_now, write_record
from harness.results.seal import check_seal

DTYPES = ("auto", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class EvaluateConfig:
    """What `python -m harness.evaluate` is asked for; conf/evaluate.yaml says more of each."""

    checkpoint: str
    revision: str | None
    name: str | None  # of a row of its own; None: the run's that made the checkpoint, or the checkpoint's own name
    dtype: str
    seed: int | None  # None: of the run that made the checkpoint, or 0
    results_dir: Path
    fresh: bool
    dry_run: bool
    engine: Execution
    evaluation: EvaluationConfig

    @staticmethod
    def from_raw(raw: dict[str, Any]) -> EvaluateConfig:
        """Strict conversion of the composed configuration; UserError names the key."""
        check_keys(raw, {field.name for field in dataclasses.fields(EvaluateConfig)})
        checkpoint = raw["checkpoint"]
        if not isinstance(checkpoint, str) or not checkpoint:
            raise UserError("checkpoint is not set; give checkpoint=<folder or Hugging Face Hub id>.")
        if raw["dtype"] not in DTYPES:
            raise UserError(f"dtype={raw['dtype']!r}: must be one of {', '.join(DTYPES)}.")
        for key in ("fresh", "dry_run"):
            if not isinstance(raw[key], bool):
                raise UserError(f"{key}={raw[key]!r}: expected true or false.")
        engine = strict(Execution, raw["engine"], "engine")
        check_engine_options(engine, raw["dtype"], roles=("evaluation",))
        return EvaluateConfig(
            checkpoint=checkpoint,
            revision=raw["revision"],
            name=None if raw["name"] is None else plain_name("name", str(raw["name"])),
            dtype=raw["dtype"],
            seed=None if raw["seed"] is None else whole_number("seed", raw["seed"]),
            results_dir=folder_of("results_dir", raw["results_dir"]),
            fresh=raw["fresh"],
            dry_run=raw["dry_run"],
            engine=engine,
            evaluation=strict(EvaluationConfig, as_entries(raw["evaluation"]), "evaluation"),
        )

    @property
    def row(self) -> str:
        """The name of its row outside of a run's folder."""
        return self.name or plain_name("name", Path(self.checkpoint).name)

    @property
    def device(self) -> str:
        """The device's name in torch."""
        return device_name(self.engine)


def score_checkpoint(config: EvaluateConfig, say: Say = silent) -> tuple[Path, RunRecord, list[Evaluation]]:
    """Scores the checkpoint on every task that its record lacks.

    Args: say: told what is waited for before the bar of the first task.
    Returns: the folder of its rows, its record, and those of its evaluations that the configuration asked for.
    """
    check_devices(config.engine)
    if not Path(locate(config.checkpoint)).is_dir():
        use_cache_if_unreachable()
    check_decoder(load_config(config.checkpoint, config.revision), config.checkpoint)
    say("reading the tasks")
    run, seed = _own_run(config)
    config = dataclasses.replace(config, seed=seed)
    folder = run or _folder_of(config)
    tasks = load_configured(config.evaluation, config.evaluation.tasks, _tokenizer(config))
    check_writable(folder)
    try:
        with FileLock(folder / LOCK, timeout=0):
            record = load_record(folder / "record.json") if run else _standalone_record(config, folder)
            check_drawn(record, tasks, config.engine.who("evaluation"), folder)
            check_rows(folder)
            record = _score(config, folder, record, tasks, say=say)
    except Timeout:
        raise UserError(f"another process is working on {folder}; wait for it or stop it.") from None
    found = {(entry.task, entry.protocol_hash): entry for entry in record.evaluations}
    return folder, record, [found[task.label, task.protocol_hash] for task in tasks.values()]


def _own_run(config: EvaluateConfig) -> tuple[Path | None, int]:
    """The folder of the finished run that made the checkpoint, if one did and no name asks for a row of its own; and
    the seed of the samples, which is the run's either way.
    """
    checkpoint = Path(locate(config.checkpoint))
    if checkpoint.name != "checkpoint" or not (checkpoint.parent / "record.json").is_file():
        return None, config.seed or 0
    check_seal(checkpoint, "make the run again with fresh=true")
    record = load_record(checkpoint.parent / "record.json")
    if config.seed not in (None, record.seed):
        raise UserError(f"seed={config.seed}: {config.checkpoint} is of a run of seed {record.seed}; leave seed out.")
    return checkpoint.parent if config.name is None else None, record.seed


def _folder_of(config: EvaluateConfig) -> Path:
    _, training_hash = _shared(config)
    return config.results_dir / f"evaluated-{training_hash[:8]}" / config.row / f"seed{config.seed or 0}"


def _shared(config: EvaluateConfig) -> tuple[dict[str, Any], str]:
    """What evaluated checkpoints must share to stand in one table, and its hash: the chat template, since prompts are
    part of a protocol. Nothing of their training is known."""
    template = json.dumps(_tokenizer(config).chat_template, sort_keys=True)
    content = {"chat_template": hashlib.sha256(template.encode()).hexdigest()}
    return {"name": "evaluated", **content}, hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _standalone_record(config: EvaluateConfig, folder: Path) -> RunRecord:
    """The record to go on with, or a new one; UserError if the name is another checkpoint's."""
    knobs = {
        "checkpoint": config.checkpoint,
        "weights": model_identity(config.checkpoint, config.revision),
        "dtype": config.dtype,
    }
    if config.fresh:
        clear_folder(folder)
    if (folder / "record.json").is_file():
        record = load_record(folder / "record.json")
        for key, value in knobs.items():
            if record.knobs.get(key) != value:
                raise UserError(
                    f"{folder} is of another {key} ({record.knobs.get(key)} instead of {value}); give name=<another "
                    "name> to keep both, or fresh=true to replace it."
                )
        return record
    setting, training_hash = _shared(config)
    return RunRecord(
        method=config.row,
        knobs=knobs,
        changed_knobs={},
        setting=setting,
        training_hash=training_hash,
        seed=config.seed or 0,
        status="started",
        engine=config.engine.who("evaluation"),
        provenance=collect_provenance(config.device),
        started_at=utc_now(),
    )


def _score(
    config: EvaluateConfig, folder: Path, record: RunRecord, tasks: Mapping[str, LoadedTask], say: Say
) -> RunRecord:
    path = folder / "record.json"
    torch.set_num_threads(config.engine.threads)
    reset_peak_memory()
    say("loading the model")

    def done(latest: RunRecord) -> None:
        write_record(path, latest)
        newest = latest.evaluations[-1]
        print(f"{newest.column}: {100 * newest.score:.2f} %, {newest.problems} x {newest.samples}", file=sys.stderr)

    checkpoint = CheckpointScoring(
        folder=folder,
        identity=model_identity(config.checkpoint, config.revision),
        engine=config.engine.who("evaluation"),
        open_model=lambda: load_checkpoint(config, folder, longest_sequence(tasks.values())),
        begins=lambda column: say(""),
        done=done,
        quiet=False,
    )
    scored = evaluate_missing(record, config.evaluation, tasks, checkpoint)
    if scored is not record or record.status == "started":
        counters = scored.counters
        if not counters.steps:  # otherwise it is the training's
            peaks = {"peak_memory_bytes": peak_memory_bytes(), "peak_gpu_memory_bytes": peak_gpu_memory_bytes()}
            counters = dataclasses.replace(counters, **peaks)
        scored = dataclasses.replace(scored, counters=counters, status="completed", reason="", finished_at=utc_now())
        write_record(path, scored)
    return scored


@contextmanager
def load_checkpoint(config: EvaluateConfig, folder: Path, longest: int) -> Iterator[EvaluatedModel]:
    """The checkpoint behind the engine of the configuration, for sequences of `longest` positions; a server's log goes
    to the folder.
    """
    model_config = load_config(config.checkpoint, config.revision)
    check_head(_tokenizer(config), model_config, config.checkpoint)
    vocab_size = model_config.get_text_config().vocab_size
    source = Source(config.checkpoint, config.revision, config.dtype)
    with open_engine(config.engine, source, vocab_size, folder, longest=longest, role="evaluation") as opened:
        yield evaluated_source(opened, source, _tokenizer(config))


def _tokenizer(config: EvaluateConfig) -> Any:
    return load_tokenizer(config.checkpoint, config.revision)

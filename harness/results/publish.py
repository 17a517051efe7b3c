"""A comparison's table, built from its records, kept, written and published."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from harness.config.decodings import ORDER_BY
from harness.errors import UserError
from harness.files import write_text
from harness.results.collect import (
    PUBLISHED,
    FoundRun,
    find_runs,
    key_of,
    load_records,
    publish_records,
    read_published,
)
from harness.results.expectations import SUMMARIES
from harness.results.leaderboard import Leaderboard, build_leaderboard
from harness.results.record import CURVE, METRICS_FILE, START, RunRecord, read_metrics
from harness.results.reference import ReferenceRow, published_rows
from harness.results.render import write_leaderboard
from harness.results.schema import parse

CACHE = ".cache/leaderboard"  # beside the comparison folder


CACHE_FROM_PAIRS = 500  # of methods; fewer are compared faster than a cache is read


CACHED_TABLES = 8  # the newest ones are kept


def rebuild_leaderboard(
    folder: Path,
    command: str,
    protocols: dict[str, str] | None = None,
    references: Sequence[str] = (),
    order_by: str = ORDER_BY,
) -> Leaderboard:
    """Builds the table of `folder` from its records and writes leaderboard.md, .json, .csv and .tex into it."""
    records = load_records(folder)
    board = build_cached(
        folder.resolve().parent / CACHE,
        records,
        command,
        protocols,
        published=_published(records, references),
        order_by=order_by,
    )
    write_leaderboard(folder, board)
    return board


def build_cached(
    cache: Path,
    records: Sequence[RunRecord],
    command: str,
    protocols: dict[str, str] | None,
    published: Sequence[ReferenceRow],
    order_by: str = ORDER_BY,
) -> Leaderboard:
    """`build_leaderboard`, for a table of many pairs of methods kept by the content of its records and of the code."""
    methods = len({record.label for record in records})
    if methods * (methods - 1) / 2 < CACHE_FROM_PAIRS:
        return build_leaderboard(records, command, protocols, published, order_by=order_by)
    content = [_code_digest(), [dataclasses.asdict(record) for record in records], command, protocols, order_by]
    content.append([dataclasses.asdict(row) for row in published])
    path = cache / f"{_digest(json.dumps(content, sort_keys=True))}.json"
    board = _read_cached(path)
    if board is None:
        board = build_leaderboard(records, command, protocols, published, order_by=order_by)
        text = json.dumps(dataclasses.asdict(board), default=_plain_number)
        write_text(path, f"{_digest(text)}\n{text}\n")
        for old in sorted(cache.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-CACHED_TABLES]:
            old.unlink(missing_ok=True)
    return board


def _read_cached(path: Path) -> Leaderboard | None:
    """A kept table: JSON, which runs nothing, with its digest before it; None where there is none, or a damaged one."""
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
        return parse(Leaderboard, json.loads(text)) if digest == _digest(text.rstrip("\n")) else None
    except (OSError, ValueError, RecursionError):
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plain_number(value: Any) -> Any:
    """numpy's whole numbers; its floats are Python's already."""
    return value.item()


def _code_digest() -> str:
    """Of everything that a table is computed by."""
    parts = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    versions = f"{sys.version} {np.__version__} {scipy.__version__}".encode()
    return hashlib.sha256(b"".join([versions, *parts])).hexdigest()


def publish(
    folder: Path,
    destination: Path,
    protocols: dict[str, str] | None = None,
    references: Sequence[str] = (),
    order_by: str = ORDER_BY,
) -> Leaderboard:
    """Writes runs.jsonl and the table to `destination`, from which the same table can be rebuilt.

    A run of `folder` takes the place of the same run there; other runs published there before stay.
    """
    earlier = read_published(destination / PUBLISHED) if (destination / PUBLISHED).is_file() else []
    runs = {key_of(record): record for record in earlier}
    runs |= {key_of(run.record): _with_training(run) for run in find_runs(folder)}
    records = [runs[key] for key in sorted(runs)]
    command = rebuild_command(destination, references, order_by)
    board = build_leaderboard(records, command, protocols, _published(records, references), order_by=order_by)
    kept = {(task.name, task.protocol_hash) for task in board.tasks}
    try:
        publish_records(destination / PUBLISHED, [_keep_protocols(record, kept) for record in records])
    except OSError as error:
        raise UserError(f"{destination} cannot be written ({error.strerror}); choose a writable folder.") from error
    write_leaderboard(destination, board)
    return board


def _with_training(run: FoundRun) -> RunRecord:
    """The record with RunRecord.training: its cost and what is kept of its metrics.jsonl."""
    from harness.results.flops import PUBLISHED_FLOPS, run_flops

    if run.folder is None or not (run.folder / METRICS_FILE).exists():
        return run.record
    rows = read_metrics(run.folder)
    keys = sorted({key for row in rows for key in row} - {"step"})
    summary = SUMMARIES["second_half_mean"]
    training = {
        f"{CURVE}{key.removeprefix(START)}@0" if key.startswith(START) else key: summary(found)
        for key in keys
        if (found := [row[key] for row in rows if row.get(key) is not None])
    }
    training |= {
        f"{k}@{row['step']}": row[k] for row in rows for k in keys if k.startswith(CURVE) and row.get(k) is not None
    }
    flops = run_flops(run.record)
    if flops is not None:
        training[PUBLISHED_FLOPS] = flops
    return dataclasses.replace(run.record, training={key: float(f"{value:.6g}") for key, value in training.items()})


def _keep_protocols(record: RunRecord, kept: set[tuple[str, str]]) -> RunRecord:
    evaluations = tuple(entry for entry in record.evaluations if (entry.task, entry.protocol_hash) in kept)
    return dataclasses.replace(record, evaluations=evaluations)


def _published(records: Sequence[RunRecord], references: Sequence[str]) -> tuple[ReferenceRow, ...]:
    return published_rows(str(records[0].setting.get("name")), references)


def rebuild_command(folder: Path, references: Sequence[str], order_by: str = ORDER_BY) -> str:
    """The command that makes a folder's table again, as the table names it."""
    chosen = [part for table in references for part in ("--reference", table)]
    chosen += ["--order-by", order_by] if order_by != ORDER_BY else []
    return shlex.join(["python", "-m", "harness.leaderboard", str(folder), *chosen])

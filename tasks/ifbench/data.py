"""IFBench: from a local folder if one is given (metadata `data_dir` or $BENCHMARK_DATA), otherwise from the Hub.

Two versions of the data exist. Until April 2026 there were 294 rows, because a fault in a table made seven prompts one;
the numbers in papers are of those. The mended set has 300.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from tasks.data import HubSource, as_splits, check_ids, data_file, data_folder, hub_rows, json_lines
from tasks.ifbench.resources import require_nltk_data

if TYPE_CHECKING:
    import datasets

HUB_294 = HubSource("allenai/IFBench_test", "train", revision="2e8a48de45ff3bf41242f927254ca81b59ca3ae2")
HUB_300 = HubSource("allenai/IFBench_test", "train")


def load(data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The 294 prompts of the papers; lm-eval passes the task's metadata as keyword arguments."""
    return _load(data_dir, 294, HUB_294)


def load_300(data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The mended 300 prompts."""
    return _load(data_dir, 300, HUB_300)


def _load(data_dir: str | None, size: int, hub: HubSource) -> dict[str, datasets.Dataset]:
    require_nltk_data(data_dir)  # now, not after hours of generation
    folder = data_folder(data_dir)
    wanted = f"ifbench/test_{size}.jsonl"
    if folder is None:
        source, raw = hub.id, list(hub_rows("ifbench", hub, wanted))
        if len(raw) != size:
            raise UserError(
                f"{hub.id} on the Hub has {len(raw)} rows and not {size}; give evaluation.data_dir, a folder that "
                f"contains {wanted}."
            )
    else:
        path = data_file(folder, wanted)
        source, raw = str(path), [row for _, row in json_lines(path)]
    return as_splits(test=_rows(raw, source))


def _rows(raw: Iterable[Mapping[str, Any]], source: str) -> list[dict[str, str]]:
    """Constraints as JSON text: their parameters have other types in every row, which a table cannot hold."""
    rows = []
    for number, row in enumerate(raw, start=1):
        try:
            constraints = [
                {"id": name, "kwargs": {key: value for key, value in (kwargs or {}).items() if value is not None}}
                for name, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True)
            ]
            text = json.dumps(constraints, ensure_ascii=False, sort_keys=True)
            rows.append({"id": str(row["key"]), "prompt": str(row["prompt"]), "constraints": text})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{source}, row {number} is not a row of IFBench: {error!r}.") from error
    check_ids((row["id"] for row in rows), source)
    return rows

"""The NLTK data that the verifiers need, from a folder that the user has; nothing is ever downloaded.

The verifier library looks for its data when it is imported and downloads what it misses. Here it is looked for first,
and its absence is one sentence.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import UserError
from tasks.data import DATA_VARIABLE, data_folder

NEEDED = ("tokenizers/punkt_tab", "corpora/stopwords", "taggers/averaged_perceptron_tagger_eng")
NLTK_VARIABLE = "NLTK_DATA"


def require_nltk_data(data_dir: str | None = None) -> None:
    """Makes NLTK find its data in `<data_dir or $BENCHMARK_DATA>/nltk_data`, $NLTK_DATA or its usual places."""
    import nltk

    for folder in reversed(_folders(data_dir)):
        if str(folder) not in nltk.data.path and folder.is_dir():
            nltk.data.path.insert(0, str(folder))
    if missing := [name for name in NEEDED if not _found(name)]:
        raise UserError(
            f"IFBench needs the NLTK data {', '.join(missing)}: set {NLTK_VARIABLE} to a folder that has them, or "
            f"evaluation.data_dir (or ${DATA_VARIABLE}) to one with nltk_data/ in it; `python -m nltk.downloader -d "
            f"FOLDER {' '.join(name.rpartition('/')[2] for name in NEEDED)}` fetches them."
        )


def _folders(data_dir: str | None) -> list[Path]:
    """Where to look, the user's choice first."""
    given = [data_folder(data_dir)]
    folders = [folder / "nltk_data" for folder in given if folder is not None]
    return folders + [Path(part) for part in os.environ.get(NLTK_VARIABLE, "").split(os.pathsep) if part]


def _found(name: str) -> bool:
    import nltk

    for candidate in (name, f"{name}.zip"):
        try:
            nltk.data.find(candidate)
        except (LookupError, OSError):
            continue
        return True
    return False

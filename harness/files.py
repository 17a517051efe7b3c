"""Where shipped files are, from whatever folder a command is started, and whether results can be written."""

import json
import os
from pathlib import Path
from typing import Any

from harness.errors import UserError

ROOT = Path(__file__).resolve().parent.parent  # the checkout


def locate(name: str) -> str:
    """A path as given if it exists, else the one inside the checkout, else (a Hub id) `name` itself.

    So a configuration can name shipped models by a path that means the same on every machine.
    """
    if not Path(name).exists() and (ROOT / name).exists():
        return str(ROOT / name)
    return name


def check_writable(folder: Path) -> None:
    """Refuses a results folder that cannot be written to."""
    probe = folder / f".write-test-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"results_dir={str(folder)!r} is not writable ({error.strerror}); give another folder."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes to a temporary name beside `path` and renames, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as JSON, atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

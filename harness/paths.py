"""Where shipped files are, from whatever folder a command is started."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the checkout


def locate(name: str) -> str:
    """A path as given if it exists, else the one inside the checkout, else (a Hub id) `name` itself.

    So a configuration can name shipped models by a path that means the same on every machine.
    """
    if not Path(name).exists() and (ROOT / name).exists():
        return str(ROOT / name)
    return name

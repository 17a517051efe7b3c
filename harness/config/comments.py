"""What the records of the configuration and the methods say of their fields in comments, for a help text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.config import execution, settings
from harness.config.settings import CONF_DIR
from harness.files import ROOT

KEY = re.compile(r"^( *)([A-Za-z_]\w*):(.*)$")
COMMENT = re.compile(r"\s#\s+(.*)$")
FIELD = re.compile(r"^    (\w+): [^#]*?(?:  # (.*))?$")  # of a record of the configuration
RECORDS = {  # class -> where its fields stand in the configuration
    "Setting": "setting",
    "Execution": "engine",
    "VLLMOptions": "engine.vllm",
    "ServerOptions": "engine.server",
    "EvaluationConfig": "evaluation",
    "Launch": "launch",
}
KNOB = re.compile(r"^    (\w+): [^=#]+ = [^#]*?  # (.*)$")  # a field of a method's dataclass
TASK = re.compile(r"^task: (\w+)", re.MULTILINE)
INDENT = 2  # blanks, in conf/ and in OmegaConf's YAML


def commented(text: str, comments: Mapping[str, str]) -> str:
    """A YAML text with a comment behind every key (dotted) that has one."""
    lines = text.splitlines()
    marked = [f"{line:<30} # {comments[key]}" if key in comments else line for key, line in _keys(lines)]
    return "\n".join(marked) + "\n"


def comments_of(method: str) -> dict[str, str]:
    """Dotted key -> comment: of conf/config.yaml, of the fields of the configuration's records, and of the knobs of a
    method.
    """
    pairs = _keys((CONF_DIR / "config.yaml").read_text(encoding="utf-8").splitlines())
    found = {key: comment[1] for key, line in pairs if key and (comment := COMMENT.search(line))}
    return found | _field_comments() | knob_comments(method)


def _field_comments() -> dict[str, str]:
    """Of the configuration's records: behind a field, or in the lines before it."""
    found: dict[str, str] = {}
    group, before = None, []
    texts = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (settings, execution)]
    for line in "".join(texts).splitlines():
        if line.startswith("class "):
            group = RECORDS.get(line.removeprefix("class ").rstrip(":"))
        elif line.startswith("    # "):
            before.append(line.strip(" #"))
            continue
        elif group and (field := FIELD.match(line)) and (comment := field[2] or " ".join(before)):
            found[f"{group}.{field[1]}"] = comment
        before = []
    return found


def knob_comments(name: str) -> dict[str, str]:
    """method.<knob> -> comment, from the text of baselines/<name>.py; a base method's knobs have theirs in its file."""
    path = ROOT / "baselines" / f"{name}.py"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {f"method.{knob[1]}": knob[2] for line in lines if (knob := KNOB.match(line))}


def task_names() -> list[str]:
    """The benchmarks, from the files of tasks/: lm-eval, which knows them too, takes seconds to import."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tasks").glob("*/*.yaml"))
    return sorted(found[1] for text in texts if (found := TASK.search(text)))


def _keys(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Every line with the dotted key that it sets; "" where it sets none."""
    above: list[str] = []
    found = []
    for line in lines:
        match = KEY.match(line)
        if match is None:
            found.append(("", line))
            continue
        above = [*above[: len(match[1]) // INDENT], match[2]]
        found.append((".".join(above), line))
    return found

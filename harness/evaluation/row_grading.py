"""Stored responses, graded row by row without a model: `python -m harness.grade`, whose help says what comes out."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.console.progress import terminal_bar
from harness.errors import UserError
from harness.evaluation.loading import process_results_of
from harness.files import lines_of, parse_row, row_text

GRADERS = "tasks.row_graders"  # a package with a module for every task; its docstring says what one has
OWN_OPTIONS = ("task", "input", "output")
AHEAD = 4  # rows that are read ahead of every worker
SHOWN_BAD_ROWS = 20  # reported one by one; more are counted


Row = Mapping[str, Any]
GradeRow = Callable[[Row], Mapping[str, Any]]


@dataclass(frozen=True)
class Line:
    """A line of the input, and what became of it."""

    number: int  # in the file, from 1
    output: Mapping[str, Any]  # the row to be written
    error: str | None  # why it could not be graded


def grade_rows(options: Mapping[str, str]) -> int:
    """Grades the file `input` into the file `output` and returns the number of rows without a verdict; UserError where
    that cannot be done at all, or for no row.
    """
    module = grader_module(options["task"])
    known = {**module.OPTIONS}
    if unknown := [name for name in options if name not in OWN_OPTIONS and name not in known]:
        takes = ", ".join([*OWN_OPTIONS, *known])
        raise UserError(f"task={options['task']} has no option {unknown[0]!r}; it takes {takes}.")
    source, target = Path(options["input"]), Path(options["output"])
    total = _count_rows(source)
    _check_target(source, target)
    grade = module.make_grader({**known, **{name: options[name] for name in known if name in options}})
    bad = _grade_file(source, target, total, grade, workers=getattr(module, "WORKERS", 1))
    print(f"{total - bad} of {total} rows graded{f', {bad} could not be' if bad else ''}: {target}")
    if bad == total:
        raise UserError(f"no row of {source} can be graded as task={options['task']}; a row is {module.FIELDS}.")
    return bad


def _check_target(source: Path, target: Path) -> None:
    """A UserError where renaming the finished file onto `output` would destroy something."""
    if not target.parent.is_dir():
        raise UserError(f"output={target}: the folder {target.parent} does not exist.")
    if target.is_symlink():  # also /dev/stdout, which would be replaced for everybody
        raise UserError(f"output={target} is a link (to {target.readlink()}); give the name of the file itself.")
    if target.exists() and not target.is_file():  # a device, such as /dev/null
        raise UserError(f"output={target} is not a regular file; give the name of one.")
    if target.exists() and target.samefile(source):
        raise UserError(f"output={target} is the input; give it another name.")


def _grade_file(source: Path, target: Path, total: int, grade: GradeRow, workers: int) -> int:
    """Writes the graded rows under a temporary name, renames the file, and returns the number of bad rows."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    bad = 0
    try:
        with temporary.open("w", encoding="utf-8") as file, terminal_bar("grading", total, "rows") as bar:
            for line in _graded(_lines(source), grade, workers):
                file.write(row_text(line.output))
                bar.advance()
                if line.error is not None:
                    bad += 1
                    if bad <= SHOWN_BAD_ROWS:
                        print(f"{source}, line {line.number}: {line.error}", file=sys.stderr)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"output={target} cannot be written ({error.strerror}); choose a writable place.") from error
    finally:
        temporary.unlink(missing_ok=True)
    if bad > SHOWN_BAD_ROWS:
        print(f"{source}: {bad - SHOWN_BAD_ROWS} more rows could not be graded", file=sys.stderr)
    return bad


def _graded(lines: Iterable[tuple[int, bytes]], grade: GradeRow, workers: int) -> Iterator[Line]:
    """Grades line by line, several at a time, and keeps their order without holding the file in memory."""
    with ThreadPoolExecutor(workers, thread_name_prefix="grade") as pool:
        waiting: deque[Future[Line]] = deque()
        try:
            for number, content in lines:
                waiting.append(pool.submit(_grade_line, number, content, grade))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _grade_line(number: int, content: bytes, grade: GradeRow) -> Line:
    row: Any = None
    try:
        row = parse_row(content)
        return Line(number, {**row, **grade(row)}, None)
    except UserError:  # the whole run is at fault: data or a sandbox is missing
        raise
    except ValueError as error:  # not a row of the task
        reason = str(error)
    except Exception as error:  # a row on which a grader stumbles must not cost the others
        reason = f"{type(error).__name__}: {error}"
    return Line(number, {**(row or {"line": number}), "error": reason}, reason)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and content of the lines that hold something."""
    try:
        for line in lines_of(path):
            yield line.number, line.content
    except OSError as error:
        raise UserError(f"input={path} cannot be read ({error.strerror}).") from error


def _count_rows(path: Path) -> int:
    if path.exists() and not path.is_file():  # the rows are read twice, and a pipe gives them once
        raise UserError(f"input={path} is not a regular file; write the rows to one.")
    count = sum(1 for _ in _lines(path))
    if not count:
        raise UserError(f"input={path} holds no rows.")
    return count


def task_names() -> list[str]:
    """Tasks that have a grader of rows."""
    package = importlib.import_module(GRADERS)
    found = (module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "fields")
    return sorted(found)


def grader_module(name: str) -> Any:
    """The task's module of row graders; UserError names those that there are.

    A benchmark has that of its kind: the one that says to grade as the benchmark's `process_results` does.
    """
    known = task_names()
    if name in known:
        return importlib.import_module(f"{GRADERS}.{name}")
    process = process_results_of(name)
    for module in (importlib.import_module(f"{GRADERS}.{other}") for other in known):
        if process in module.GRADES_LIKE:
            return module
    raise UserError(
        f"task={name!r} cannot be graded; known: {', '.join(known)}, and the benchmarks of these kinds, such as gsm8k."
    )

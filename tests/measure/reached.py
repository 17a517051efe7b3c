"""A pytest plugin: which assertions were never reached?

    PYTHONPATH=. PYTHONPYCACHEPREFIX=/tmp/reached python -m pytest -p tests.measure.reached \\
        -o enable_assertion_pass_hook=true tests/numerics

A loop over an empty list, a branch that is never taken and a helper that nobody calls hold assertions that cannot fail.
After the tests it lists every `assert` of the files that were run which no test passed through. The cache prefix is
needed because pytest would otherwise reuse test files that were compiled without the hook.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

_passed: set[tuple[Path, int]] = set()
_files: set[Path] = set()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Which files have tests in this run."""
    _files.update(item.path for item in session.items)


def pytest_assertion_pass(item: pytest.Item, lineno: int) -> None:
    """An assertion held; helpers of other files count for the file of the test, where they do no harm."""
    _passed.add((item.path, lineno))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The list."""
    reporter = terminalreporter
    for path in sorted(_files):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert) and (path, node.lineno) not in _passed:
                reporter.write_line(f"never reached: {path}:{node.lineno} {ast.unparse(node)[:100]}")

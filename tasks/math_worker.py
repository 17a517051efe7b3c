"""The process in which math-verify runs: a pair of answers per line in, a verdict per line out.

Started by tasks.math_equivalence as a file of its own. sympy can be sent into computations that never end, some of them
inside C code where no Python signal handler runs; so every pair gets a budget of CPU time whose end is the default
action of SIGPROF: the kernel ends the process, and the caller starts another one.
"""

import contextlib
import json
import logging
import re
import resource
import signal
import sys
from typing import Any

MAX_BYTES = 4 << 30  # of address space: a number with a billion digits ends here
CPU_SECONDS = 5.0  # for one pair; CPU and not wall time, so that a verdict does not depend on the machine's load
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar|dot)\s*\{\s*([0-9]+)\s*\}")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*\\?%")


def main() -> None:
    """Answers until the input ends."""
    with contextlib.suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401  # seconds, and not on the clock of the first pair

    print("ready", flush=True)
    for line in sys.stdin:
        gold, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            same = equivalent(gold, answer)
        except (Exception, MemoryError):  # whatever sympy stumbles over: not shown to be equal
            same = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(same), flush=True)


def equivalent(gold: str, answer: str) -> bool:
    """Whether math-verify holds the two for the same, with decimals taken at their exact value."""
    from math_verify import verify

    golds, answers = _parse(gold), _parse(answer)
    return bool(golds and answers) and verify(golds, answers, allow_set_relation_comp=True, timeout_seconds=None)


def _parse(latex: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    text = _REPEATING.sub(_as_fraction, latex.replace("\n", " ").replace("\r", " "))
    text = _PERCENT.sub(r"\\frac{\1}{100}", text).replace(r"\varnothing", r"\emptyset")
    parsed = parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)
    return [value if isinstance(value, str) else _exact(value) for value in parsed]


def _as_fraction(match: re.Match[str]) -> str:
    """0.1\\overline{6} as (16 - 1) / 90."""
    whole, start, period = match[1] or "0", match[2], match[3]
    top = int(whole + start + period) - int(whole + start)
    return rf"\frac{{{top}}}{{{10 ** len(start) * (10 ** len(period) - 1)}}}"


def _exact(value: Any) -> Any:
    """Decimals as fractions, i as the imaginary unit.

    math-verify rounds to six decimals where a float is among the values, which makes 1.41421356 equal to the root of 2.
    """
    import sympy

    if isinstance(value, sympy.MatrixBase):
        return value.applyfunc(_exact)
    replaced = {number: sympy.Rational(str(number)) for number in value.atoms(sympy.Float)}
    units = {symbol: sympy.I for symbol in value.free_symbols if symbol.name == "i"}
    changed = value.xreplace({**replaced, **units}) if replaced or units else value
    return changed.doit() if units and isinstance(changed, sympy.Expr) else changed


if __name__ == "__main__":
    main()

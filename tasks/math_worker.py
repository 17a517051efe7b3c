"""The process in which sympy runs: a question per line in, a verdict per line out.

Started by tasks.math_equivalence as a file of its own. sympy can be sent into computations that never end, some of them
inside C code where no Python signal handler runs; so every question gets a budget of CPU time whose end is the default
action of SIGPROF: the kernel ends the process, and the caller starts another one.

A question is ["strict", gold, answer], two answers in plain LaTeX (tasks.math_notation), or ["official", gold,
response], which math-verify decides from the response's text to the verdict.
"""

import contextlib
import json
import logging
import resource
import signal
import sys
from pathlib import Path

MAX_BYTES = 4 << 30  # of address space: a number with a billion digits ends here
MAX_READ_CHARS = 200  # of what math-verify read, which is only shown
CPU_SECONDS = 5.0  # for one question; CPU and not wall time, so that a verdict does not depend on the machine's load


def main() -> None:
    """Answers until the input ends."""
    with contextlib.suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    logging.disable(logging.CRITICAL)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    mend_parser()
    import tasks.math_symbols  # noqa: F401  # seconds, and not on the clock of the first question

    decide = {"strict": strict, "official": official}
    print("ready", flush=True)
    for line in sys.stdin:
        mode, gold, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            same, read = decide[mode](gold, answer)
        except (Exception, MemoryError):  # whatever sympy stumbles over: not shown to be equal
            same, read = False, None
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps([bool(same), read]), flush=True)


def mend_parser() -> None:
    r"""Completes the parser that latex2sympy2_extended 1.11.0 brings for antlr 4.9.3, the version that omegaconf needs.

    It lacks one method of that for 4.13.2, math-verify's own, and so fails at every percentage; nothing else differs.
    """
    from latex2sympy2_extended.antlr_parser import PSParser

    if not hasattr(PSParser.AtomContext, "FUNC_GAMMA"):
        PSParser.AtomContext.FUNC_GAMMA = lambda self: self.getToken(PSParser.FUNC_GAMMA, 0)


def strict(gold: str, answer: str) -> tuple[bool, None]:
    """Our own comparison."""
    from tasks.math_symbols import equivalent

    return equivalent(gold, answer), None


def official(gold: str, response: str) -> tuple[bool, str | None]:
    """math-verify as it comes: its own extraction and comparison, the gold as inline math as its README has it.

    Its timeouts are replaced by this process's own, since its alarms do not ring inside C code. Returns also what it
    read.
    """
    from math_verify import parse, verify

    golds, answers = parse(f"${gold}$", parsing_timeout=None), parse(response, parsing_timeout=None)
    same = verify(golds, answers, timeout_seconds=None)
    return same, str(answers[-1])[:MAX_READ_CHARS] if answers else None


if __name__ == "__main__":
    main()

"""`python tests/measure/mutation.py [MODULE ...] [--jobs 2]`: do the tests notice when the arithmetic is wrong?

Every mutant (tests/measure/mutants.py) of a module is put in its place in a forked process, in memory, and the module's
own tests are run there until one fails. torch and the like are imported once, before the forks; the project's own
modules are imported anew in every fork, so that no name, default or class of the unchanged module is left.

Writes results/mutation/<module>.json, the outcome of every mutant, and results/mutation/table.md, which docs/testing.md
embeds (`python -m harness.results.embed docs/testing.md`). A survivor is explained in tests/measure/survivors.yaml, by
its name; one that is not is printed, and the exit code is 1. `--report` only writes the table again.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.abc
import importlib.util
import json
import math
import os
import random
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import yaml

from harness.files import ROOT, write_json, write_text

if __package__:
    from .mutants import Mutant, mutants_of
else:  # started as a file
    from mutants import Mutant, mutants_of  # type: ignore[import-not-found, no-redef]

OUTPUT = ROOT / "results" / "mutation"
SURVIVORS = Path(__file__).with_name("survivors.yaml")
SEED = 0  # of the sample of a module's mutants
# a mutant's limit of CPU time, in times of what the unchanged module takes; a loop without end is stopped there
SLOWER = 8
LEAST_LIMIT_S = 10
FIRST_LIMIT_S = 600  # of the unchanged module
WAITING = 20  # times the limit, by the clock: one that only waits is stopped too
MEMORY_BYTES = 24 * 2**30  # of address space: a mutant may ask for anything
PRELOADED = (
    "torch",
    "transformers",
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.models.gpt2.modeling_gpt2",
    "numpy",
    "scipy.stats",
    "scipy.optimize",
    "datasets",
    "lm_eval.api.instance",
    "lm_eval.api.model",
    "psutil",
    "pytest",
    "yaml",
    "rich.progress",
)
UNUSED_PLUGINS = ("cacheprovider", "unraisableexception", "threadexception", "faulthandler")
OUR_PACKAGES = ("harness", "baselines", "tasks", "tests")


@dataclass(frozen=True)
class Target:
    """A module and the tests that are to notice its mutants."""

    tests: tuple[str, ...]  # files
    left_out: str = ""  # pytest's -k of tests that take too long to be run for every mutant
    sample: int | None = None  # so many of its mutants, drawn; None: all


TARGETS = {
    "harness/seeds.py": Target(("tests/numerics/test_seeds.py",)),
    "harness/results/record.py": Target(("tests/results/test_record.py",)),
    "harness/numerics/credit.py": Target(("tests/numerics/test_credit.py",)),
    "harness/divergences.py": Target(("tests/numerics/test_divergences.py", "tests/numerics/test_divergences_more.py")),
    "harness/numerics/loss.py": Target(("tests/numerics/test_loss.py",), left_out="full_vocabulary"),
    "harness/numerics/logprobs.py": Target(
        ("tests/numerics/test_logprobs.py", "tests/numerics/test_loss.py"), left_out="full_vocabulary"
    ),
    "harness/evaluation/journal.py": Target(("tests/evaluation/test_journal.py",)),
    "harness/results/variance.py": Target(
        ("tests/results/test_variance.py", "tests/results/test_statistics.py"), left_out="coverage or has_its_size"
    ),
    "harness/results/statistics.py": Target(("tests/results/test_statistics.py",), left_out="coverage or has_its_size"),
    "harness/rollout/hf.py": Target(("tests/rollout/test_hf.py",), sample=160),
}


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source than its file holds."""

    def __init__(self, path: str, source: str) -> None:
        self.name, self.path, self.source = path.removesuffix(".py").replace("/", "."), str(ROOT / path), source

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Of that module alone."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the other source."""
        exec(compile(self.source, self.path, "exec"), module.__dict__)


def run_tests(path: str, source: str, tests: Sequence[str], cpu_s: int, log: Path | None) -> int:
    """In a forked process: pytest's exit code of the tests with the module as `source` says."""
    import pytest

    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    sink = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(sink, descriptor)
    for name in [name for name in sys.modules if name.partition(".")[0] in OUR_PACKAGES]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Mutated(path, source))
    return int(pytest.main(["-x", "-q", *(f"-pno:{plugin}" for plugin in UNUSED_PLUGINS), *tests]))


def start(path: str, source: str, tests: Sequence[str], cpu_s: int, log: Path | None = None) -> int:
    """Forks; the process id."""
    pid = os.fork()
    if pid == 0:
        code = 70  # none of pytest's
        try:
            code = run_tests(path, source, tests, cpu_s, log)
        finally:
            os._exit(code)
    return pid


def cpu_limit(path: str, tests: Sequence[str]) -> int:
    """Seconds of CPU time that a mutant may take; the tests must pass on the unchanged module, and are timed there."""
    log = Path(f"/tmp/mutation-{os.getpid()}.log")
    pid = start(path, (ROOT / path).read_text(encoding="utf-8"), tests, FIRST_LIMIT_S, log)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"the tests of {path} fail on the unchanged module:\n{log.read_text()}")
    log.unlink()
    return max(LEAST_LIMIT_S, math.ceil(SLOWER * (usage.ru_utime + usage.ru_stime)))


def run_mutants(path: str, mutants: Sequence[Mutant], jobs: int) -> dict[str, str]:
    """The outcome of every mutant by its name: `killed` by a test that fails, `stopped` at a limit, or `survived`."""
    target = TARGETS[path]
    tests = [*target.tests, *(["-k", f"not ({target.left_out})"] if target.left_out else [])]
    limit = cpu_limit(path, tests)
    waiting, running, outcomes = list(reversed(mutants)), {}, {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[start(path, mutant.source, tests, limit)] = (mutant, time.monotonic() + WAITING * limit)
        for pid, (_, end) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                stopped = code in (-signal.SIGKILL, -signal.SIGXCPU)
                outcomes[running.pop(pid)[0].name] = "stopped" if stopped else "killed" if code else "survived"
            elif time.monotonic() > end:
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.01)
    return {mutant.name: outcomes[mutant.name] for mutant in mutants}


def chosen(path: str) -> tuple[list[Mutant], int]:
    """The mutants of a module that are run, and how many there are."""
    mutants = mutants_of((ROOT / path).read_text(encoding="utf-8"))
    sample = TARGETS[path].sample
    if sample is None or sample >= len(mutants):
        return mutants, len(mutants)
    drawn = set(random.Random(SEED).sample(range(len(mutants)), sample))
    return [mutant for i, mutant in enumerate(mutants) if i in drawn], len(mutants)


def file_of(path: str) -> Path:
    """Where a module's outcomes are kept."""
    return OUTPUT / f"{re.sub(r'[/.]', '_', path.removeprefix('harness/').removesuffix('.py'))}.json"


def reasons_of() -> dict[str, dict[str, str]]:
    """Why each survivor may live, by module and name."""
    groups = yaml.safe_load(SURVIVORS.read_text(encoding="utf-8")) or {}
    return {
        path: {name: group["why"] for group in given for name in group["mutants"]} for path, given in groups.items()
    }


def report() -> int:
    """Writes the table; 1 if a survivor has no reason, or a reason no survivor."""
    reasons, rows, listed, wrong, totals = reasons_of(), [], [], 0, Counter[str]()
    for path in (path for path in TARGETS if file_of(path).exists()):
        found = json.loads(file_of(path).read_text(encoding="utf-8"))
        outcomes, known = found["outcomes"], reasons.get(path, {})
        survivors = [name for name, outcome in outcomes.items() if outcome == "survived"]
        for name in sorted(set(survivors) - set(known)):
            print(f"not explained: {path}: {name}")
        for name in sorted(set(known) - set(survivors)):
            print(f"explained, but killed or gone: {path}: {name}")
        wrong += len(set(survivors) ^ set(known))
        counts = Counter(outcomes.values())
        numbers = {
            "mutants": found["mutants"],
            "run": len(outcomes),
            "killed by a test": counts["killed"],
            "stopped at a limit": counts["stopped"],
            "survived": len(survivors),
            "explained": len(set(survivors) & set(known)),
        }
        totals.update(numbers)
        rows.append(_row([f"`{path}`", *map(str, numbers.values())]))
        listed += [f"**`{path}`**", ""] if survivors else []
        for why in dict.fromkeys(known.get(name, "not explained") for name in survivors):
            listed.append(f"- {why}")
            listed += [f"  - {name}" for name in survivors if known.get(name, "not explained") == why]
        listed += [""] if survivors else []
    text = ["Made by `python tests/measure/mutation.py`.", "", _row(["module", *numbers]), _row(["---", *["---:"] * 6])]
    text += [*rows, _row(["all", *(str(totals[key]) for key in numbers)]), "", "Survivors, and why they may live:", ""]
    write_text(OUTPUT / "table.md", "\n".join([*text, *listed]).rstrip() + "\n")
    return 1 if wrong else 0


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Counts the mutants that the tests notice.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TARGETS)}; all without one")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--survivors", action="store_true", help="run those again that survived last time, no others")
    parser.add_argument(
        "--report", action="store_true", help="run nothing, write the table from what has been measured"
    )
    options = parser.parse_args(arguments)
    if not options.report:
        os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        os.chdir(ROOT)
        sys.path[0] = str(ROOT)
        for name in PRELOADED:
            importlib.import_module(name)
        gc.freeze()  # the forks leave what has been imported alone
        for path in options.modules or TARGETS:
            mutants, count = chosen(path)
            before = {}
            if options.survivors:
                before = json.loads(file_of(path).read_text(encoding="utf-8"))["outcomes"]
                mutants = [mutant for mutant in mutants if before.get(mutant.name) != "killed"]
            outcomes = {**before, **run_mutants(path, mutants, options.jobs)}
            known = {mutant.name for mutant in chosen(path)[0]}
            write_json(file_of(path), {"mutants": count, "outcomes": {k: v for k, v in outcomes.items() if k in known}})
            print(f"{path}: {dict(Counter(outcomes.values()))} of {count}", flush=True)
    return report()


if __name__ == "__main__":
    sys.exit(main())

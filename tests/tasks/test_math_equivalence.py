"""tasks.math_equivalence: the worker is used from any thread, is replaced when it dies, and never holds up the caller
for long.
"""

import multiprocessing
import os
import signal
import threading
import time

import pytest

from tasks import math_equivalence, math_worker
from tasks.math_answer import compare
from tasks.math_equivalence import equivalence, explodes


@pytest.mark.parametrize(
    "bomb",
    [
        "9^{9^{9^9}}",
        "2^{2^{2^{2^{2^{2}}}}}",
        "(10!)!",
        "10!!",
        "9^{99999999}",
        "10^{10^{10}}",
        "99999!",
        "2^{(20!)}",
        "9**9**9**9",
        "e^{e^{e^{e^{e}}}}",
        r"\binom{99999999}{4999999}",
        r"\prod_{k=1}^{10^9} k",
        r"\sum_{n=1}^{100000000} \frac{1}{n}",
    ],
)
def test_bombs_are_not_evaluated(bomb):
    started = time.monotonic()
    assert explodes(bomb) and compare("25", bomb) == "different"
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "text",
    [
        "x^8 + x^7 + x^6",
        r"\sum_{k=1}^{10} k^2",
        "2^{1009}",
        "10^{100}",
        "5!",
        "20!",
        "x^{2^3}",
        "e^{x^2}",
        r"\frac{2^{10}}{3^{5}}",
        "2^{10}^{2}",
    ],
)
def test_honest_powers_are_evaluated(text):
    assert not explodes(text)


def test_a_computation_without_end_costs_its_own_limit_and_the_next_answer_is_right(monkeypatch):
    """sympy's simplify does not come back from this in minutes; the filter for bombs does not know it."""
    slow = r"\int_0^1 \frac{\sin(x^7+\cos(x^5))^{13}}{\ln(x^3+2)^{11}+\tan(x)^{9}} dx"
    started = time.monotonic()
    assert equivalence("25", slow) in ("different", "timeout")
    assert time.monotonic() - started < math_worker.CPU_SECONDS * 6  # the machine may be busy
    assert equivalence(r"\sqrt{8}", r"2\sqrt{2}") == "equal"


def test_the_kernel_ends_a_worker_that_is_inside_c_code():
    """Called as the worker calls it, in a process of its own."""

    def burn() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.2)
        pow(7, 10**9)  # one C call: no Python signal handler would run before its end

    child = multiprocessing.get_context("fork").Process(target=burn)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGPROF


def test_a_dead_worker_is_replaced():
    assert equivalence("x+1", "1+x") == "equal"
    process = math_equivalence._WORKER._process
    assert process is not None
    process.kill()
    process.wait()
    assert equivalence("x+2", "2+x") == "equal"


def test_threads_share_the_worker_and_an_alarm_of_the_caller_survives():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
    signal.alarm(1)
    verdicts: dict[int, str] = {}

    def ask(n: int) -> None:
        verdicts[n] = equivalence(f"({n}+x)^2", f"x^2+{2 * n}x+{n * n + n % 2}")

    try:
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        deadline = time.monotonic() + 5
        while not rang and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert rang and verdicts == {n: "different" if n % 2 else "equal" for n in range(12)}


def test_a_forked_process_gets_a_worker_of_its_own():
    assert equivalence("x+3", "3+x") == "equal"
    mine = math_equivalence._WORKER._process
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.starmap(equivalence, [("x+4", "4+x"), ("x+4", "5+x")]) == ["equal", "different"]
        assert pool.apply(os.getpid) != os.getpid()
    assert math_equivalence._WORKER._process is mine
    assert equivalence("x+5", "5+x") == "equal"

"""Programs that go for the machine that grades them: its memory beyond all limits, its time, its comparison of answers.

`python -m tests.measure.hostile` measures what each costs the host. Every program fails, of course.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_C = "import ctypes, mmap, os, posix, signal, socket, sys, time\nlibc = ctypes.CDLL(None, use_errno=True)\n"
_FORK = _C + "for _ in range(7):\n    try:\n        if posix.fork() == 0: break\n    except OSError: pass\n"

# 30 processes fill 256 MiB each, one after the other, and have next to none of it mapped in the end
_OUT_OF_VIEW = (
    "mmap.mmap(fd, 1 << 20)\nfor n in range(30):\n    if posix.fork() == 0:\n        time.sleep(0.1 * n)\n"
    "        m = mmap.mmap(fd, 1 << 28)\n        for at in range(0, 1 << 28, 1 << 20):\n"
    "            m[at : at + (1 << 20)] = b'x' * (1 << 20)\n            m.madvise(mmap.MADV_DONTNEED)\n"
    "        time.sleep(9)\ntime.sleep(5)\nprint(1)\n"
)


@dataclass(frozen=True)
class Attack:
    """A program, by what it goes for."""

    kind: str  # a line of docs/reliability.md
    code: str
    functional: bool = False  # its function `f` is called with 1; else it is run with the input 1

    @property
    def row(self) -> dict[str, Any]:
        """The program with a test, as harness.grade takes it."""
        text = "1" if self.functional else "1\n"
        return {"code": self.code, "inputs": [text], "outputs": [text], "fn_name": "f" if self.functional else None}


def _dict(entries: int) -> str:
    return (
        "class D(dict):\n    def items(self): return ((i * ((1 << 61) - 1), 0) for i in range(1, "
        + str(entries)
        + "))\n"
        "def f(x): return D()\n"
    )


def _array(longest: int, others: int) -> str:
    return (
        "class Fake:\n    dtype = type('D', (), {'kind': 'U', 'str': '<U1'})(); shape = (1,)\n    def item(self): "
        "return 0\n"
        f"    def tolist(self): return ['x' * {longest}] + [''] * {others}\nFake.__module__ = 'numpy'\ndef f(x): "
        "return Fake()\n"
    )


def _ratio(bits: int) -> str:
    return (
        f"import random\nclass R:\n    def as_integer_ratio(self): return [random.getrandbits({bits}) | 1 for _ in "
        "'12']\n"
        "R.__module__ = 'fractions'\ndef f(x): return R()\n"
    )


ATTACKS = {
    # what the host compares
    "dict_collisions": Attack("comparison", _dict(400_000), functional=True),
    "dict_collisions_short": Attack("comparison", _dict(30_000), functional=True),
    "array_memory": Attack("comparison", _array(1_000_000, 400), functional=True),
    "array_memory_more": Attack("comparison", _array(6_000_000, 1_500_000), functional=True),
    "array_memory_short": Attack("comparison", _array(100_000, 100_000), functional=True),
    "ratio": Attack("comparison", _ratio(12_000_000), functional=True),
    "ratio_short": Attack("comparison", _ratio(1_500_000), functional=True),
    "deep_list": Attack(
        "comparison", "def f(x):\n    for _ in range(40_000): x = [x]\n    return x\n", functional=True
    ),
    "many_lines": Attack("comparison", "print('\\n' * (15 << 20))"),
    "many_words": Attack("comparison", "print('1 ' * (7 << 20))"),
    "many_empty_lists": Attack("comparison", "def f(x): return [[]] * 4_000_000\n", functional=True),
    # memory that resident memory leaves out
    "attributes_and_links": Attack(
        "files",
        _C + "posix.close(posix.open('/tmp/a', posix.O_CREAT | posix.O_WRONLY))\n"
        "for call in (lambda i: posix.setxattr('/tmp/a', f'user.{i}', b'x' * 60000),\n"
        "             lambda i: posix.link('/tmp/a', f'/tmp/h{i}' + 'n' * 200),\n"
        "             lambda i: posix.symlink('n' * 4000, f'/tmp/s{i}' + 'n' * 200)):\n"
        "    try:\n        for i in range(1 << 20): call(i)\n    except OSError: pass\n",
    ),
    "inodes": Attack(
        "files",
        _FORK + "p, n = posix.getpid(), 0\nwhile True:\n    try:\n"
        "        posix.close(posix.open(f'/tmp/{p}-{n}', posix.O_CREAT | posix.O_WRONLY)); n += 1\n    except "
        "OSError: pass\n",
    ),
    "socket_buffers": Attack(
        "buffers",
        _FORK + "kept = []\nwhile True:\n    try:\n        a, b = socket.socketpair(); a.setblocking(False)\n"
        "        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24); kept.append((a, b))\n"
        "        while True: a.send(bytes(1 << 15))\n    except OSError: time.sleep(0.01)\n",
    ),
    "pipe_buffers": Attack(
        "buffers",
        _FORK
        + "kept = []\nwhile True:\n    try:\n        a, b = posix.pipe(); posix.set_blocking(b, False); kept.append((a, b))\n"
        "        libc.fcntl(b, 1031, 1 << 20)\n        while True: posix.write(b, bytes(1 << 16))\n"
        "    except OSError: time.sleep(0.01)\n",
    ),
    "shared_memory_out_of_view": Attack("shared memory", _C + "fd = -1\n" + _OUT_OF_VIEW),
    "shared_zeros_out_of_view": Attack(
        "shared memory", _C + "fd = posix.open('/dev/zero', posix.O_RDWR)\n" + _OUT_OF_VIEW
    ),
    "record_locks": Attack(
        "files",
        "import fcntl\n"
        + _FORK
        + "files = [open(f'/tmp/{posix.getpid()}-{n}', 'w') for n in range(40)]\nat = 0\nwhile True:\n"
        "    for file in files: fcntl.lockf(file, fcntl.LOCK_EX, 1, at)\n    at += 2\n",
    ),
    "watches": Attack(
        "files",
        _C + "kept = []\nfor _ in range(50):\n    fd = libc.inotify_init1(0)\n    if fd < 0: break\n"
        "    libc.inotify_add_watch(fd, b'/tmp', 0xfff); kept.append(fd)\n"
        "while kept:\n    posix.close(posix.open('/tmp/' + 'n' * 250, posix.O_CREAT)); posix.unlink('/tmp/' + 'n' * "
        "250)\n",
    ),
    "terminals": Attack(
        "buffers",
        _FORK + "while True:\n    try:\n        a, b = posix.openpty(); posix.set_blocking(a, False)\n"
        "        while True: posix.write(a, bytes(4096))\n    except OSError: time.sleep(0.01)\n",
    ),
    "page_tables": Attack(
        "page tables",
        _FORK
        + "kept = []\nwhile True:\n    try:\n        m = mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "        for at in range(0, 1 << 30, 1 << 21): m[at]\n        kept.append(m)\n    except (OSError, "
        "ValueError): time.sleep(0.1)\n",
    ),
    # time
    "alarm_off": Attack("time", _C + "signal.alarm(0)\nt = time.time()\nwhile time.time() - t < 9: pass\nprint(1)\n"),
    "alarm_off_while_loading": Attack(
        "time",
        "import signal, time\nsignal.alarm(0)\nt = time.time()\nwhile time.time() - t < 13: pass\ndef f(x): return x\n",
        functional=True,
    ),
    "dribbles": Attack(
        "time",
        _C + "signal.alarm(0)\nt = time.time()\nwhile time.time() - t < 9:\n    for n in range(3, 12):\n"
        "        try: posix.write(n, b' ')\n        except OSError: pass\n    time.sleep(0.1)\nprint(1)\n",
    ),
}

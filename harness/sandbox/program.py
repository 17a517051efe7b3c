"""What goes into a sandbox, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MIB = 1 << 20

Reason = Literal["exited", "wall", "memory", "processes", "files", "output", "stopped"]


@dataclass(frozen=True)
class Limits:
    """What one program may use. A program that wants more fails; it never waits, and nobody waits for it."""

    wall_s: float = 10.0
    cpu_s: int | None = None  # per process; None: wall_s, rounded up
    memory_bytes: int = 1024 * MIB  # address space of each process; resident memory and page tables of all together
    processes: int = 64  # processes and threads together
    output_bytes: int = 16 * MIB  # of stdout, and of stderr
    file_bytes: int = 16 * MIB  # of any file that it writes
    disk_bytes: int = 64 * MIB  # of its private temporary folder
    files: int = 4096  # in that folder, folders included
    open_files: int = 64  # per process

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ValueError(f"the limit {name} must be positive, not {value}")


@dataclass(frozen=True)
class Program:
    """A Python program, run as a script of its own by the interpreter that runs the harness."""

    code: str
    stdin: bytes = b""
    files: Mapping[str, bytes] = field(default_factory=dict)  # by bare name; read-only, in the script's folder
    packages: tuple[str, ...] = ()  # installed packages that it may import; those that are absent are left out
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        for name in self.files:
            if "/" in name or name in ("", ".", "..", SCRIPT):
                raise ValueError(f"{name!r} cannot be the name of a file beside the program")


SCRIPT = "main.py"  # the program's own file name


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    stdout: bytes  # up to the limit
    stderr_tail: str  # the last few thousand characters
    exit: int | None  # exit code, 128 + n after signal n; None: it was stopped from outside
    reason: Reason  # "exited" by itself, or the limit that it hit; "stopped": the caller had seen enough
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself and says that all went well."""
        return self.reason == "exited" and self.exit == 0

"""The ways to start a program locked up: bubblewrap as root, bubblewrap as an ordinary user, and not at all.

As root no user namespace is made: inside one, root outside stays exempt from the limit on processes. The program
gets a user id of its own instead, and no capabilities. As an ordinary user a user namespace is the only way.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import math
import os
import platform
import shutil
import site
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.sandbox.memory_group import memory_group
from harness.sandbox.program import SCRIPT, Program
from harness.sandbox.seccomp import seccomp_filter

BOX = "/box"  # where the program and its files are, inside
PACKAGES = "/packages"
PYTHON_HOME = "/py"  # where an interpreter that is not under /usr is, inside
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONPATH": PACKAGES,
    "PYTHONHASHSEED": "0",  # the order of a set must not decide a verdict
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# bubblewrap ties its processes to the life of their parents one after the other, and whoever dies meanwhile leaves the
# rest behind. By the time that this runs all are tied; if we answer then, our death takes all of them along.
_START = """
import os, sys
try:
    lifeline = int(sys.argv[1])
    os.write(lifeline, b"r")
    if os.read(lifeline, 1) != b"g":
        os._exit(1)
    os.close(lifeline)
except OSError:
    os._exit(1)
__file__ = sys.argv[2]
del sys.argv[:2], lifeline, os, sys
exec(compile(open(__file__, "rb").read(), __file__, "exec", dont_inherit=True))
"""
_PYTHON_FLAGS = ("-s", "-P", "-B")  # nothing is imported from a home folder or the program's own, nothing is cached
# no /dev/zero (its shared mappings are memory that nobody counts) and no terminals (they have buffers)
_DEVICES = ("null", "random", "urandom")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_PENDING_SIGNALS = 256  # queued, and timers; every one is memory of the kernel
_SLOTS = 1024  # user ids that one process of the harness may use at a time


@dataclass(frozen=True)
class Launch:
    """A command that is ready to start, and the descriptors that it inherits."""

    command: tuple[str, ...]
    descriptors: tuple[int, ...]
    environment: dict[str, str]
    release: Callable[[], None] = lambda: None  # to be called once the process is known: before, it does nothing
    join: Callable[[int], None] = lambda pid: None  # puts a process under a count of the kernel
    info_read: int | None = None  # bubblewrap reports the first process inside here
    lifeline: socket.socket | None = None  # the program's start waits here for our word
    folder: str | None = None  # where it starts


class Confinement(Protocol):
    """A way to start programs. Prepared launches are closed by leaving the context."""

    @property
    def name(self) -> str:
        """How results name it."""
        ...

    @property
    def confined(self) -> bool:
        """Whether it protects the machine."""
        ...

    def missing(self) -> str | None:
        """What this machine lacks for it, or None."""
        ...

    def prepare(self, program: Program, slot: int) -> AbstractContextManager[Launch]:
        """Gives the Launch. Concurrent programs have different slots."""
        ...


@dataclass(frozen=True)
class Bubblewrap:
    """Namespaces, a read-only view of the system's libraries, and a temporary folder that is gone afterwards."""

    as_root: bool
    confined: bool = True

    @property
    def name(self) -> str:
        return "bubblewrap, own user id" if self.as_root else "bubblewrap, user namespace"

    def missing(self) -> str | None:
        """The tool that is not installed, if any."""
        tools = ["bwrap", "prlimit", *(["setpriv"] if self.as_root else [])]
        absent = [tool for tool in tools if shutil.which(tool) is None]
        if self.as_root and os.geteuid() != 0:
            return "not root"
        return f"{', '.join(absent)} not installed" if absent else None

    @contextmanager
    def prepare(self, program: Program, slot: int) -> Iterator[Launch]:
        """Lays out the file system; everything goes through memory files, so that nothing shows in a process list."""
        with ExitStack() as stack:
            inherited: list[int] = []

            def inherit(content: bytes) -> str:
                inherited.append(stack.enter_context(memory_file(content)))
                return str(inherited[-1])

            arguments = [*self._namespaces(), *_system_mounts(), *_package_mounts(program.packages)]
            arguments += ["--perms", "0755", "--dir", BOX]
            for name, content in {SCRIPT: program.code.encode(errors="replace"), **program.files}.items():
                arguments += ["--perms", "0444", "--file", inherit(content), f"{BOX}/{name}"]
            arguments += ["--perms", "1777", "--size", str(program.limits.disk_bytes), "--tmpfs", "/tmp"]
            arguments += ["--remount-ro", "/", "--chdir", "/tmp"]
            if rules := seccomp_filter():
                arguments += ["--seccomp", inherit(rules)]
            info_read, info_write = os.pipe()
            stack.callback(os.close, info_read)
            stack.callback(os.close, info_write)
            inherited.append(info_write)
            arguments += ["--info-fd", str(info_write)]
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            inherited.append(theirs.fileno())
            join = stack.enter_context(memory_group(program.limits.memory_bytes + program.limits.disk_bytes))
            listed, release = stack.enter_context(_held_back(b"\0".join(argument.encode() for argument in arguments)))
            inherited.append(listed)
            inside = [*self._drop_privileges(slot), *_rlimits(program, self.as_root), _inner_python(), *_PYTHON_FLAGS]
            start = ["-c", _START, str(theirs.fileno()), f"{BOX}/{SCRIPT}"]
            command = (_tool("bwrap"), "--args", str(listed), "--", *inside, *start)
            yield Launch(
                command=command,
                descriptors=tuple(inherited),
                environment={},
                release=release,
                join=join,
                info_read=info_read,
                lifeline=ours,
            )

    def _namespaces(self) -> list[str]:
        shared = ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
        for name, value in {**_ENVIRONMENT, **_library_path()}.items():
            shared += ["--setenv", name, value]
        if self.as_root:
            unshared = ["ipc", "net", "pid", "uts", "cgroup-try"]
            return [*(f"--unshare-{namespace}" for namespace in unshared), *shared]
        return ["--unshare-all", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", *shared]

    def _drop_privileges(self, slot: int) -> list[str]:
        """As root: a user id of its own, since the limit on processes counts those of an id, over all sandboxes."""
        if not self.as_root:
            return []
        user = _first_user_id() + slot % _SLOTS
        ids = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return [_tool("setpriv"), *ids, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"]


@dataclass(frozen=True)
class Unconfined:
    """No protection whatever beyond rlimits: a plain child process. Only for callers who say that they want it."""

    name: str = "none (unsafe)"
    confined: bool = False

    def missing(self) -> str | None:
        return None

    @contextmanager
    def prepare(self, program: Program, slot: int) -> Iterator[Launch]:
        """Writes the program into a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="unsandboxed-") as folder:
            for name, content in {SCRIPT: program.code.encode(errors="replace"), **program.files}.items():
                (Path(folder) / name).write_bytes(content)
            limits = _rlimits(program, False) if shutil.which("prlimit") else []
            command = (*limits, sys.executable, *_PYTHON_FLAGS, f"{folder}/{SCRIPT}")
            environment = {**_ENVIRONMENT, "HOME": folder, "TMPDIR": folder}
            yield Launch(command, (), environment, folder=folder)


@contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """A descriptor of an anonymous file, at its beginning, which nobody can change any more."""
    if sys.platform != "linux":
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            yield file.fileno()
        return
    descriptor = os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for start in range(0, len(content), 1 << 20):
            view = memoryview(content)[start : start + (1 << 20)]
            while view:
                view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _held_back(content: bytes) -> Iterator[tuple[int, Callable[[], None]]]:
    """The read end of a pipe that gives the content, and then ends, when the function is called."""
    read, write = os.pipe()
    with os.fdopen(read, "rb"), os.fdopen(write, "wb", buffering=0) as file:

        def release() -> None:
            with suppress(BrokenPipeError):
                file.write(content)
                file.close()

        yield read, release


@functools.lru_cache
def _system_mounts() -> tuple[str, ...]:
    """The interpreter and the libraries it needs. Nothing of /etc, /home, /root, /var or a mounted volume."""
    mounts: list[str] = ["--proc", "/proc", "--perms", "0755", "--dir", "/dev"]
    for device in _DEVICES:
        mounts += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    for name, target in _DEVICE_LINKS.items():
        mounts += ["--symlink", target, f"/dev/{name}"]
    for folder in ("/usr", "/lib", "/lib64", "/bin"):
        if os.path.islink(folder):
            mounts += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            mounts += ["--ro-bind", folder, folder]
    home = _python_home()
    if not home.startswith("/usr"):
        mounts += ["--perms", "0755", "--dir", PYTHON_HOME, "--ro-bind", home, PYTHON_HOME]
    for folder in site.getsitepackages([home]):  # what else is installed there is neither a program's to use nor to run
        if os.path.isdir(folder):
            inside = _inside(folder)
            mounts += ["--tmpfs", inside, "--remount-ro", inside]
    return tuple(mounts)


@functools.lru_cache
def _package_mounts(packages: tuple[str, ...]) -> tuple[str, ...]:
    """The folders or files of installed packages, with the compiled libraries that wheels keep beside them."""
    mounts = ["--perms", "0755", "--dir", PACKAGES]
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None:
            continue
        locations = spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
        for location in map(Path, locations):
            for path in (location, location.with_name(f"{package}.libs")):
                if path.exists():
                    mounts += ["--ro-bind", str(path.resolve()), f"{PACKAGES}/{path.name}"]
    return tuple(mounts)


def _rlimits(program: Program, count_processes: bool) -> list[str]:
    limits = program.limits
    options = [
        f"--as={limits.memory_bytes}",
        f"--fsize={limits.file_bytes}",
        f"--nofile={limits.open_files}",
        f"--cpu={limits.cpu_s or math.ceil(limits.wall_s)}",
        "--core=0",
    ]
    if count_processes or _processes_counted_by_namespace():
        options += [f"--nproc={limits.processes}", f"--sigpending={_PENDING_SIGNALS}"]
    return [_tool("prlimit"), *options, "--"]


def _processes_counted_by_namespace() -> bool:
    """Older kernels count all processes of the user, wherever they run: the limit would stop the program itself.

    The supervisor counts processes as well, so that the limit still holds there, a little later.
    """
    major, minor = (int(part) for part in platform.release().split(".")[:2])
    return (major, minor) >= (5, 14)


def _first_user_id() -> int:
    """The start of a range of user ids that no account and no other running harness has."""
    with open("/proc/self/uid_map") as table:
        inside, _, count = (int(number) for number in table.readline().split())
    available = inside + count - _SLOTS
    if available > 2_000_000_000:
        return 1_000_000_000 + os.getpid() % 500_000 * _SLOTS
    return max(available - os.getpid() % 8 * _SLOTS, 1)


def _python_home() -> str:
    return os.path.realpath(sys.base_prefix)


def _inner_python() -> str:
    """The path of this interpreter inside."""
    return _inside(os.path.realpath(sys.executable))


def _inside(path: str) -> str:
    """Where a path of the Python installation is inside."""
    home = _python_home()
    return path if home.startswith("/usr") else path.replace(home, PYTHON_HOME, 1)


def _library_path() -> dict[str, str]:
    """A libpython outside /usr is looked up where it was installed, which is not where it is inside."""
    shared = sysconfig.get_config_var("Py_ENABLE_SHARED") and not _python_home().startswith("/usr")
    return {"LD_LIBRARY_PATH": f"{PYTHON_HOME}/lib"} if shared else {}


@functools.lru_cache
def _tool(name: str) -> str:
    return shutil.which(name) or name

"""A filter of system calls that a graded program has no use for, as a BPF program that bubblewrap installs.

Namespaces and rlimits leave gaps that these calls fit through: anonymous memory files and System V segments are
memory that no rlimit counts, the kernel's keyrings are in no namespace, and new user namespaces open large parts of
the kernel to whoever asks.
"""

from __future__ import annotations

import platform
import struct

# name: (x86_64, aarch64); from the kernel's tables of system calls
_DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "mount_setattr": (442, 442),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}
_CLONE = (56, 220)
_SOCKET = (41, 198)
_CLONE3 = 435  # its flags are behind a pointer, so it is denied whole; the C library then uses clone
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH
_X32_CALLS = 0x40000000  # the second table of system calls on x86_64 starts here
_CLONE_NEWUSER = 0x10000000
_AF_UNIX = 1  # the only family left: some of the others (AF_VSOCK) do not heed network namespaces

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF instructions
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # offsets in struct seccomp_data, little-endian
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38


def seccomp_filter(machine: str | None = None) -> bytes | None:
    """The filter for this machine's architecture; None where the numbers of its system calls are not known here."""
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        return None
    column, architecture = _ARCHITECTURES[machine]
    program = [_load(_ARCHITECTURE_AT), *_unless_equal(architecture, _KILL), _load(_NUMBER_AT)]
    if machine == "x86_64":
        program += _when(_AT_LEAST, _X32_CALLS, _KILL)
    for numbers in _DENIED.values():
        program += _when(_EQUAL, numbers[column], _ERRNO | _EPERM)
    program += _when(_EQUAL, _CLONE3, _ERRNO | _ENOSYS)
    program += _checked(_CLONE[column], _when(_ANY_BIT, _CLONE_NEWUSER, _ERRNO | _EPERM))
    program += _checked(_SOCKET[column], _unless_equal(_AF_UNIX, _ERRNO | _EPERM))
    program.append(_verdict(_ALLOW))
    return b"".join(program)


def _instruction(code: int, when_true: int, when_false: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, when_true, when_false, value)


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, 0, 0, offset)


def _verdict(action: int) -> bytes:
    return _instruction(_RETURN, 0, 0, action)


def _when(comparison: int, value: int, action: int) -> list[bytes]:
    """Takes the action if the comparison of what is loaded holds, else goes on."""
    return [_instruction(comparison, 0, 1, value), _verdict(action)]


def _unless_equal(value: int, action: int) -> list[bytes]:
    return [_instruction(_EQUAL, 1, 0, value), _verdict(action)]


def _checked(number: int, checks: list[bytes]) -> list[bytes]:
    """The call of this number is allowed if its first argument passes the checks."""
    block = [_load(_FIRST_ARGUMENT_AT), *checks, _verdict(_ALLOW)]
    return [_instruction(_EQUAL, 0, len(block), number), *block]

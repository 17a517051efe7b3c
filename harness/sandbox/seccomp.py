"""A filter of system calls that a graded program has no use for, as a BPF program that bubblewrap installs.

Namespaces and rlimits leave gaps that these calls fit through: the kernel's keyrings are in no namespace, new user
namespaces open large parts of the kernel to whoever asks, and much memory is counted by no rlimit and as nobody's
resident memory: that of memory files, of System V segments, of shared mappings that are not mapped at the moment, of
sockets' buffers, of what hangs on a file (attributes, names, locks, watches), of pages that a pipe holds on to.
"""

from __future__ import annotations

import platform
import struct

# name: (x86_64, aarch64); from the kernel's tables of system calls. None: the architecture never had it
_DENIED: dict[str, tuple[int, int | None]] = {
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
    "io_setup": (206, 0),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "splice": (275, 76),
    "tee": (276, 77),
    "vmsplice": (278, 75),
    "remap_file_pages": (216, 234),
    "modify_ldt": (154, None),
}
_CLONE = (56, 220)
_FCNTL = (72, 25)
_MMAP = (9, 222)
_CLONE3 = 435  # its flags are behind a pointer, so it is denied whole; the C library then uses clone
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH
_X32_CALLS = 0x40000000  # the second table of system calls on x86_64 starts here
_CLONE_NEWUSER = 0x10000000
_MAP_SHARED, _MAP_ANONYMOUS = 0x01, 0x20  # the bits of the former are also set in MAP_SHARED_VALIDATE
# commands of fcntl: record locks of both kinds, leases, notes about folders, larger pipes
_FCNTL_DENIED = (6, 7, 37, 38, 1024, 1026, 1031)

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF instructions
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data, little-endian
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
    denied = _ERRNO | _EPERM
    for numbers in _DENIED.values():
        if (number := numbers[column]) is not None:
            program += _when(_EQUAL, number, denied)
    program += _when(_EQUAL, _CLONE3, _ERRNO | _ENOSYS)
    program += _checked(_CLONE[column], 0, _when(_ANY_BIT, _CLONE_NEWUSER, denied))
    commands = [rule for command in _FCNTL_DENIED for rule in _when(_EQUAL, command, denied)]
    program += _checked(_FCNTL[column], 1, commands)
    # shared memory without a file stays when it is unmapped from view, and is then in nobody's resident memory
    both = [_instruction(_ANY_BIT, 0, 2, _MAP_SHARED), *_when(_ANY_BIT, _MAP_ANONYMOUS, denied)]
    program += _checked(_MMAP[column], 3, both)
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


def _checked(number: int, argument: int, checks: list[bytes]) -> list[bytes]:
    """The call of this number is allowed if the low half of its argument (the first is 0) passes the checks."""
    block = [_load(_ARGUMENTS_AT + 8 * argument), *checks, _verdict(_ALLOW)]
    return [_instruction(_EQUAL, 0, len(block), number), *block]

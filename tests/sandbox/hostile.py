"""Programs that nobody should have to run. Each prints "6" if and only if its attack worked, so that it would pass.

In the code, @PORT@ is a port that the host listens on, @FILE@ a file of the host, @SECRET@ a variable of its
environment.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hostile:
    name: str
    code: str


_FORK = "import os, time, sys, signal\n"

HOSTILE = [
    # resources
    Hostile(
        "fork_sleepers", _FORK + "for _ in range(200):\n    if os.fork() == 0: time.sleep(60); os._exit(0)\nprint(6)"
    ),
    Hostile("fork_bomb", _FORK + "while True:\n    try: os.fork()\n    except OSError: pass"),
    Hostile(
        "thread_bomb",
        "import threading, time\nfor _ in range(500):\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint(6, flush=True)",
    ),
    Hostile("allocate_10_gib", "x = bytearray(10 << 30)\nprint(6)"),
    Hostile("allocate_bit_by_bit", "x = []\nwhile len(x) < 10240: x.append(bytes(1 << 20))\nprint(6)"),
    Hostile("map_10_gib", "import mmap\nx = mmap.mmap(-1, 10 << 30)\nprint(6)"),
    Hostile(
        "allocate_in_many_processes",
        _FORK + "for _ in range(6):\n    if os.fork() == 0: x = b'x' * (100 << 20); time.sleep(60)\n"
        "time.sleep(0.9)\nprint(6, flush=True)",
    ),
    Hostile(
        "memory_files",
        "import os\nkept = []\nfor n in range(40):\n    f = os.memfd_create(str(n)); kept.append(f)\n"
        "    os.write(f, bytes(1 << 20))\nprint(6)",
    ),
    Hostile(
        "system_v_memory",
        "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nn = sum(c.shmget(0, 64 << 20, 0o1600) >= 0 for _ in "
        "range(40))\n"
        "print(6 if n else n)",
    ),
    Hostile("endless_stdout", "while True: print('x' * 1000)"),
    Hostile("endless_stderr", "import sys\nwhile True: sys.stderr.write('x' * 1000)"),
    Hostile(
        "unpacked_bomb",
        "import sys, zlib\nsmall = zlib.compress(bytes(64 << 20), 9)\n"
        "for _ in range(64): sys.stdout.buffer.write(zlib.decompress(small))",
    ),
    Hostile("file_handles", "x = [open('/dev/null') for _ in range(5000)]\nprint(6)"),
    Hostile(
        "sparse_file", "import os\nf = os.open('/tmp/f', os.O_CREAT | os.O_RDWR)\nos.ftruncate(f, 1 << 40)\nprint(6)"
    ),
    Hostile(
        "full_disk",
        "for n in range(1000):\n    with open(f'/tmp/{n}', 'wb') as f: f.write(bytes(1 << 20))\nprint(6)",
    ),
    Hostile("many_files", "n = 0\nwhile True: open(f'/tmp/{n}', 'w').close(); n += 1"),
    # memory that no rlimit counts and that is nobody's resident memory
    Hostile(
        "extended_attributes",
        "import os\nopen('/tmp/a', 'w').close()\nos.setxattr('/tmp/a', 'user.a', b'x' * 60000)\nprint(6)",
    ),
    Hostile("hard_links", "import os\nopen('/tmp/a', 'w').close()\nos.link('/tmp/a', '/tmp/b')\nprint(6)"),
    Hostile("symbolic_links", "import os\nos.symlink('n' * 4000, '/tmp/a')\nprint(6)"),
    Hostile("socket_pair", "import socket\nsocket.socketpair()\nprint(6)"),
    Hostile("unix_socket", "import socket\nsocket.socket(socket.AF_UNIX)\nprint(6)"),
    Hostile("shared_memory", "import mmap\nmmap.mmap(-1, 1 << 20)[0]\nprint(6)"),
    Hostile("shared_zeros", "import mmap, os\nmmap.mmap(os.open('/dev/zero', os.O_RDWR), 1 << 20)[0] = 1\nprint(6)"),
    Hostile(
        "record_locks",
        "import fcntl\nwith open('/tmp/a', 'w') as f:\n    fcntl.lockf(f, fcntl.LOCK_EX, 1, 1)\nprint(6)",
    ),
    Hostile("watches", "import ctypes\nprint(6 if ctypes.CDLL(None).inotify_init1(0) >= 0 else '')"),
    Hostile(
        "pages_in_a_pipe",
        "import os\na, b = os.pipe()\nwith open('/tmp/a', 'w+b') as f:\n    f.write(bytes(4096)); f.flush()\n"
        "    os.splice(f.fileno(), b, 4096, offset_src=0)\nprint(6)",
    ),
    Hostile("larger_pipe", "import fcntl, os\nfcntl.fcntl(os.pipe()[1], fcntl.F_SETPIPE_SZ, 1 << 20)\nprint(6)"),
    Hostile("terminals", "import os\nos.openpty()\nprint(6)"),
    Hostile(
        "queued_signals",
        "import os, signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, {34})\nimport ctypes\nc = "
        "ctypes.CDLL(None)\n"
        "n = sum(c.sigqueue(os.getpid(), 34, 0) == 0 for _ in range(5000))\nprint(6 if n == 5000 else n)",
    ),
    Hostile("all_cores", _FORK + "for _ in range(7):\n    if os.fork() == 0: break\nwhile True: pass"),
    Hostile("long_multiplication", "x = 7 ** (10 ** 9)\nprint(6)"),
    Hostile("slow_regular_expression", "import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')\nprint(6)"),
    # network
    Hostile("local_socket", "import socket\nsocket.create_connection(('127.0.0.1', @PORT@), 1)\nprint(6)"),
    Hostile("remote_socket", "import socket\nsocket.create_connection(('192.0.2.1', 80), 1)\nprint(6)"),
    Hostile("name_lookup", "import socket\nsocket.getaddrinfo('example.org', 80)\nprint(6)"),
    Hostile(
        "datagram",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))\nprint(6)",
    ),
    Hostile("raw_packets", "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nprint(6)"),
    Hostile("virtual_machine_socket", "import socket\nsocket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)\nprint(6)"),
    # files and secrets
    Hostile("read_passwd", "print(6 if open('/etc/passwd').read() else '')"),
    Hostile("list_home", "import os\nprint(6 if [*os.listdir('/home'), *os.listdir('/root')] else '')"),
    Hostile("read_host_file", "open('@FILE@').read()\nprint(6)"),
    Hostile(
        "write_host_file",
        "import os\nos.makedirs(os.path.dirname('@FILE@'), exist_ok=True)\nopen('@FILE@', 'w').write('6')",
    ),
    Hostile("write_to_root", "open('/evil', 'w').write('x')\nprint(6)"),
    Hostile("write_to_usr", "open('/usr/lib/evil', 'w').write('x')\nprint(6)"),
    Hostile("write_to_dev", "open('/dev/evil', 'w').write('x')\nprint(6)"),
    Hostile("rewrite_itself", "open(__file__, 'w').write('print(6)')\nprint(6)"),
    Hostile("read_environment", "import os\nprint(6 if '@SECRET@' in os.environ else '')"),
    Hostile(
        "read_other_environments",
        "import glob\nfor path in glob.glob('/proc/*/environ'):\n"
        "    try: text = open(path).read()\n    except OSError: continue\n    if '@SECRET@' in text: print(6)",
    ),
    Hostile("climb_out_through_proc", "import os\nprint(6 if os.listdir('/proc/1/root/etc') else '')"),
    Hostile("read_memory_of_init", "open('/proc/1/mem', 'rb').read(1)\nprint(6)"),
    Hostile("tune_the_kernel", "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')\nprint(6)"),
    Hostile("press_sysrq", "open('/proc/sysrq-trigger', 'w').write('h')\nprint(6)"),
    Hostile("terminal", "import os\nos.write(os.open('/dev/tty', os.O_RDWR), b'6')\nprint(6)"),
    Hostile(
        "inherited_descriptors",
        "import os\nfor n in range(3, 256):\n    try: os.write(n, b'6'); print(6)\n    except OSError: pass",
    ),
    # privileges
    Hostile("become_root", "import os\nos.setuid(0)\nprint(6)"),
    Hostile("change_root", "import os\nos.mkdir('/tmp/r'); os.chroot('/tmp/r')\nprint(6)"),
    Hostile("make_a_device", "import os, stat\nos.mknod('/tmp/d', stat.S_IFBLK | 0o600, os.makedev(254, 0))\nprint(6)"),
    Hostile(
        "set_user_id_program",
        "import os, shutil, stat\nshutil.copy('/usr/bin/id', '/tmp/id')\nos.chmod('/tmp/id', 0o4755)\n"
        "print(6 if '(root)' in os.popen('/tmp/id; /usr/bin/su -c id').read() else '')",
    ),
    Hostile("raise_priority", "import os\nos.nice(-5)\nprint(6)"),
    Hostile("raise_limits", "import resource as r\nr.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2)\nprint(6)"),
    Hostile(
        "new_user_namespace",
        "import ctypes\nprint(6 if ctypes.CDLL(None).unshare(0x10000000) == 0 else '')",
    ),
    Hostile(
        "mount", "import ctypes\nprint(6 if ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0 else '')"
    ),
    Hostile("trace_init", "import ctypes\nprint(6 if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else '')"),
    Hostile("kernel_keyring", "import ctypes\nprint(6 if ctypes.CDLL(None).syscall(250, 0, -5, 1) >= 0 else '')"),
    # processes
    Hostile("kill_the_parent", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"),
    Hostile(
        "kill_everything",
        "import os, signal\nos.kill(-1, signal.SIGKILL)\nprint(6 if len(os.listdir('/proc')) < 1 else '')",
    ),
    Hostile("leave_at_once", "import os\nos._exit(0)"),
    Hostile("stop_itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"),
    Hostile("crash", "import ctypes\nctypes.string_at(0)"),
    Hostile(
        "endless_recursion", "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(n): return f(n + 1) + 1\nf(0)\nprint(6)"
    ),
    Hostile(
        "deaf_to_signals",
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
    ),
    Hostile("deaf_and_mute", "import os, time\nos.close(1); os.close(2); os.close(0)\ntime.sleep(60)"),
    Hostile("child_outlives", _FORK + "if os.fork() == 0:\n    time.sleep(60); print(6)"),
    Hostile(
        "daemon_outlives",
        _FORK + "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        for n in range(3): os.close(n)\n        time.sleep(60)\n    os._exit(0)\nprint()",
    ),
    Hostile("other_program", "import os\nos.execv('/usr/bin/sleep', ['sleep', '60'])"),
]

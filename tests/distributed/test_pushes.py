"""Every rank pushes to an engine of its own; one that dies stops nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.files import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_every_rank_has_all_weights_whatever_engine_dies(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "tests.distributed.pushes", kind, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rank0" / "right").exists() and (tmp_path / "rank1" / "right").exists()
    assert done.stderr.count("starting it once more") == 2

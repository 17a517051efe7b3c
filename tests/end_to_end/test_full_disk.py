"""A disk that fills up in the middle of a run: a sentence, no temporary file, and it goes on once there is room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.files import ROOT
from harness.results.record import load_record, read_metrics

# in a namespace of its own, where it may mount a small disk; what is left there is copied out
SCRIPT = """
mount -t tmpfs -o size=$SIZE tmpfs $DISK || exit 99
"$@"; echo $? > $COPY/first_code
find $DISK > $COPY/left
mount -o remount,size=300m $DISK
"$@"; echo $? > $COPY/second_code
cp -r $DISK/results $COPY/results
"""
RUN = "hydra.mode=RUN method=opd setting.steps=4 setting.prompts_per_step=8 engine.micro_batch_prompts=4"
QUICK = "engine.save_every=1 evaluation=none setting.max_new_tokens=16 hydra/launcher=basic"


def can_mount() -> bool:
    done = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="no user namespaces here")
@pytest.mark.parametrize("size", ["1900k", "400k"])  # in the second checkpoint; before the first
def test_a_full_disk(tmp_path: Path, size: str) -> None:
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    copy.mkdir()
    command = [sys.executable, "-m", "harness.run", *RUN.split(), *QUICK.split(), f"results_dir={disk}/results"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", SCRIPT, "sh", *command],
        cwd=ROOT,
        env={**os.environ, "SIZE": size, "DISK": str(disk), "COPY": str(copy), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (copy / "first_code").read_text() == "2\n" and (copy / "second_code").read_text() == "0\n"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors and all("there is no room left on the disk of" in line for line in errors)
    assert "Traceback" not in done.stderr
    assert not [line for line in (copy / "left").read_text().splitlines() if line.endswith(".tmp")]
    (folder,) = copy.glob("results/*/opd/seed0")
    assert load_record(folder / "record.json").status == "completed"
    assert [row["step"] for row in read_metrics(folder)] == [1, 2, 3, 4]

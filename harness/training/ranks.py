"""Several processes that train one model: what they tell each other, and how they are started.

Every rank writes and scores the completions of its own prompts. Log-probs and rollouts are gathered (numbers per token,
never logits), every rank computes the same credit on the same global step, and keeps its own rows of it. Random draws
have no rank among their coordinates, so the number of ranks changes nothing but rounding, and a run saved on N goes on
on M.

Started by `launch.num_processes=N` (harness.training.rank_program is the program of a rank then), or by `accelerate
launch … -m harness.run …`.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import OmegaConf
from torch import distributed as dist
from torch import nn

from harness.engines.checks import KEYS, urls_of
from harness.engines.group import count as count
from harness.engines.group import from_main as from_main
from harness.engines.group import index as index
from harness.errors import UserError
from harness.scoring.pieces import join_rows

if TYPE_CHECKING:
    from harness.config.settings import RunConfig

T = TypeVar("T")
# For one another: ranks wait while rank 0 evaluates or makes teacher responses. One that dies is seen by the launcher,
# which ends the others at once.
WAIT_LIMIT = timedelta(days=7)
JOB_FILE = "ranks.pickle"  # in the run's folder while the ranks are at work
ERROR_FILE = "rank{}.log"  # the traceback of a rank that failed
BAD_INPUT = f"{UserError.__module__}.{UserError.__name__}: "  # in its last line


def wait_for_all() -> None:
    """Returns when every rank has called it."""
    if count() > 1:
        dist.barrier()


def gather_rows(values: Sequence[T], rows: Sequence[int]) -> list[T]:
    """Everybody's values, ordered by their global row; `rows` are those of this rank's values."""
    if count() == 1:
        return list(values)
    found = dict(pair for piece in _gather(list(zip(rows, values, strict=True))) for pair in piece)
    return [found[row] for row in sorted(found)]


def gather_tensors(record: T, rows: Sequence[int]) -> T:
    """Everybody's records of tensors [B, T, …] as one, padded with 0; `rows` are the global rows of this rank's."""
    if count() == 1:
        return record
    return join_rows(_gather((list(rows), record)))


def combined(values: Mapping[str, float], largest: Sequence[str]) -> dict[str, float]:
    """Sums over the ranks, of the keys in `largest` the largest value. Every rank must give the same keys."""
    pieces = [values] if count() == 1 else _gather(dict(values))
    return {key: (max if key in largest else sum)(piece[key] for piece in pieces) for key in values}


def _gather(value: T) -> list[T]:
    everybody: list[Any] = [None] * count()
    dist.all_gather_object(everybody, value)
    return everybody


@contextmanager
def whole_weights(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Inside, a model sharded by FSDP2 has all its weights on every rank, so that each may sample and score at its own
    pace.

    A model that is not sharded is left alone, and so is any if it is not `wanted`, about which all ranks agree. Costs
    one gather, and the memory of the whole weights.
    """
    from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

    parts = [module for module in model.modules() if wanted and isinstance(module, FSDPModule)]
    if parts and not hasattr(model, "begin"):  # FSDP2 takes the module that runs first for the root of the tree
        model.begin = lambda: None  # type: ignore[assignment]
        register_fsdp_forward_method(model, "begin")
        model.begin()  # type: ignore[operator]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not parts[0], recurse=False)  # FSDP2's own default: the root stays
            part.reshard()


def start(device: str) -> None:
    """Joins the process group that the launcher describes in the environment, if there is one with several ranks.

    What ranks tell each other as objects goes by way of the CPU, tensors of a GPU by NCCL.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        backend = {} if device == "cpu" else {"backend": "cuda:nccl,cpu:gloo"}
        PartialState(cpu=device == "cpu", timeout=WAIT_LIMIT, **backend)


def shards() -> bool:
    """Whether FSDP cuts the student's weights over the ranks; `accelerate launch` says so in the environment."""
    return _accelerate_uses("FSDP")


def _accelerate_uses(engine: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() in ("1", "true")


def check_ranks(run: RunConfig) -> None:
    """What several processes a run cannot do; UserError."""
    kind = distributed_type(run.launch.accelerate_config)
    if kind == "DEEPSPEED" or _accelerate_uses("DEEPSPEED"):
        raise UserError(
            "DeepSpeed is not supported: under ZeRO-3 a model cannot be sampled from or scored outside of its own "
            "forward pass; give launch.accelerate_config=conf/accelerate/fsdp2.yaml, which cuts the same things."
        )
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if int(os.environ.get("LOCAL_WORLD_SIZE", world)) < world:
        for role in ("student", "teacher"):
            if run.engine.who(role) == "server" and not urls_of(run.engine, role):
                key = "teacher_urls" if role == "teacher" else "urls"
                raise UserError(
                    f"{KEYS[role]}=server would start servers on one machine, out of reach of ranks on another; start "
                    f"them by hand and give engine.server.{key}=[…]."
                )
    device = run.engine.teacher_device
    if device is not None and device.startswith("cuda"):
        raise UserError(
            f"engine.teacher_device={device}: the teachers of all ranks would be on that one device; leave it out, and "
            "each rank has its teacher beside its student, or give cpu."
        )


def distributed_type(accelerate_config: str | None) -> str | None:
    """What a file of `accelerate config` makes of the ranks: FSDP, MULTI_GPU, …; None without a file."""
    if accelerate_config is None:
        return None
    path = Path(accelerate_config)
    if not path.is_file():
        raise UserError(f"launch.accelerate_config={str(path)!r}: there is no such file.")
    return str(OmegaConf.select(OmegaConf.load(path), "distributed_type"))


def launch(config: RunConfig, folder: Path) -> None:
    """Trains a run on `launch.num_processes` ranks and waits for them; RuntimeError with the first failed rank's
    reason, UserError if that is bad input.
    """
    job = folder / JOB_FILE
    job.write_bytes(pickle.dumps((config, folder)))
    processes = config.launch.num_processes
    for i in range(processes):
        (folder / ERROR_FILE.format(i)).unlink(missing_ok=True)
    if config.launch.accelerate_config is None:
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    else:
        command = ["-m", "accelerate.commands.launch", f"--config_file={config.launch.accelerate_config}"]
        command += [f"--num_processes={processes}"]
    environment = {"OMP_NUM_THREADS": str(config.engine.threads), **os.environ}
    done = subprocess.run(
        [sys.executable, *command, "-m", "harness.training.rank_program", str(job)], env=environment, check=False
    )
    job.unlink()
    if done.returncode:
        logs = [folder / ERROR_FILE.format(i) for i in range(processes)]
        told = [path for path in sorted(logs, key=_written_at) if path.exists()]
        reason = told[0].read_text().strip().splitlines()[-1] if told else f"exit code {done.returncode}"
        if reason.startswith(BAD_INPUT):
            raise UserError(reason.removeprefix(BAD_INPUT))
        raise RuntimeError(f"{told[0].stem if told else 'a rank'}: {reason}")


def _written_at(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0

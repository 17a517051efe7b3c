"""The machines of a plan: conf/hardware/."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import OmegaConf

from harness.config.settings import CONF_DIR, strict
from harness.errors import UserError


@dataclass(frozen=True)
class Hardware:
    """What a plan needs to know of the machines, per rank."""

    ranks: int
    memory_gib: float
    flops: float  # per second, of the models' number type
    bytes_per_s: float  # of the rank's memory
    link_bytes_per_s: float  # between ranks, one way
    compute_share: float  # of flops that training and scoring reach
    bandwidth_share: float  # of bytes_per_s that decoding reaches
    gpu: bool = True


def load_hardware(name: str) -> Hardware:
    """A file of conf/hardware/ by name."""
    path = CONF_DIR / "hardware" / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise UserError(f"hardware={name!r}: must be one of {', '.join(known)}.")
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    return strict(Hardware, {str(key): value for key, value in values.items()}, "hardware")

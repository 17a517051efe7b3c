"""The memory model of `harness.plan` beside measured CPU runs: twenty small shapes, ten to fit its constants on, ten to
check.

    python tests/measure/plan_memory.py [--measure FILE] [--read FILE]

Each run is a process of its own: it loads two random models, trains two steps, and tells the peak of its resident
memory above that of the loaded models. Prints prediction beside measurement, and exits with 1 if one of the ten that
were not fitted is off by more than 20 %. --measure writes the measurements to a file, --read checks against such a
file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
LIMIT = 0.20
KEYS = ("vocab", "hidden", "layers", "prompts", "micro", "completion", "teacher")
FITTED = [  # one row per run: KEYS
    (2_000, 128, 4, 32, 8, 96, 192),
    (16_384, 64, 2, 16, 16, 64, 96),
    (64_000, 96, 2, 8, 8, 64, 96),
    (8_000, 256, 4, 16, 4, 128, 256),
    (2_000, 256, 8, 8, 8, 200, 256),
    (151_936, 64, 2, 8, 4, 48, 96),
    (32_000, 128, 6, 32, 32, 48, 128),
    (4_000, 192, 6, 64, 8, 64, 192),
    (100_000, 128, 2, 16, 2, 32, 128),
    (500, 384, 4, 16, 16, 96, 384),
]
CHECKED = [
    (1_000, 192, 4, 32, 16, 96, 256),
    (16_384, 128, 4, 16, 8, 96, 128),
    (50_000, 64, 4, 16, 16, 64, 96),
    (151_936, 64, 2, 16, 16, 64, 96),
    (8_000, 320, 4, 8, 8, 160, 320),
    (32_000, 192, 3, 24, 8, 64, 256),
    (128_000, 96, 3, 8, 8, 48, 96),
    (2_000, 384, 6, 8, 4, 128, 384),
    (20_000, 256, 2, 32, 32, 64, 256),
    (4_000, 128, 8, 48, 24, 80, 128),
]
PROMPT = 16


def predicted(shape: tuple[int, ...]) -> int:
    """Bytes above the loaded models."""
    from harness.planning.memory import Work, predict

    run = dict(zip(KEYS, shape, strict=True))
    sizes = [_size(run["vocab"], run[key], run["layers"]) for key in ("hidden", "teacher")]
    work = Work(run["prompts"], run["prompts"], PROMPT, run["completion"], run["micro"], "float32")
    return predict(sizes[0], sizes[1], work).extra


def _fields(vocab: int, hidden: int, layers: int) -> dict[str, object]:
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 32,
        "num_key_value_heads": hidden // 32,
        "head_dim": 32,
        "tie_word_embeddings": False,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "bos_token_id": None,
    }


def _size(vocab: int, hidden: int, layers: int):
    from harness.models.sizes import ModelSize

    block = 4 * hidden * hidden + 3 * 4 * hidden * hidden + 2 * hidden + 64
    return ModelSize(
        2 * vocab * hidden + layers * block + hidden, 2 * layers * hidden, vocab, hidden, layers, 4 * hidden, hidden
    )


def run_one(shape: tuple[int, ...]) -> None:
    """Trains two steps in this process and prints the extra bytes."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    from harness.config.sweep import planned_runs
    from harness.console.progress import RunProgress
    from harness.training import train as training
    from harness.training.recorder import StepRecorder

    torch.set_num_threads(1)
    run = dict(zip(KEYS, shape, strict=True))
    with tempfile.TemporaryDirectory() as text:
        root = Path(text)
        words = {"<eos>": 0, **{f"w{i}": i for i in range(1, 400)}}
        plain = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
        plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<eos>", eos_token="<eos>")
        tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
        for name, key in (("student", "hidden"), ("teacher", "teacher")):
            Qwen3ForCausalLM(Qwen3Config(**_fields(run["vocab"], run[key], run["layers"]))).save_pretrained(root / name)
            tokenizer.save_pretrained(root / name)
        texts = [" ".join(f"w{1 + (i + j) % 399}" for j in range(PROMPT)) for i in range(200)]
        (root / "prompts.jsonl").write_text("".join(json.dumps({"prompt": t}) + "\n" for t in texts))
        loaded = 0

        class Watched(StepRecorder):
            def on_train_begin(self, *arguments, **keywords):
                nonlocal loaded
                loaded = _resident("VmRSS")
                Path("/proc/self/clear_refs").write_text("5")

        training.StepRecorder = Watched  # type: ignore[misc]
        (config,) = planned_runs(_command(root, run))
        (root / "run").mkdir()
        training.train(config, root / "run", RunProgress(None, 2))
        print("EXTRA", _resident("VmHWM") - loaded)


def _command(root: Path, run: dict[str, int]) -> list[str]:
    """The arguments of `python -m harness.run`."""
    return [
        "method=opd",
        "setting=custom",
        *(f"setting.{key}={root / key}" for key in ("student", "teacher")),
        f"setting.prompts={root / 'prompts.jsonl'}",
        "setting.max_prompt_tokens=64",
        f"setting.max_new_tokens={run['completion']}",
        "setting.min_continuation=1",
        f"setting.prompts_per_step={run['prompts']}",
        "setting.samples_per_prompt=1",
        "setting.top_k=8",
        "setting.steps=2",
        "setting.learning_rate=1e-5",
        "setting.weight_decay=0.0",
        f"engine.micro_batch_prompts={run['micro']}",
        f"engine.rows_per_batch={run['prompts']}",
        "engine.device=cpu",
        "evaluation=none",
        "evaluation.distance=null",
        "seed=0",
    ]


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(field)


def measure(shape: tuple[int, ...]) -> int:
    """The extra bytes of a run, in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--shape", json.dumps(shape)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(next(line for line in out.splitlines() if line.startswith("EXTRA")).split()[1])


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--measure", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--shape", type=json.loads)
    arguments = parser.parse_args()
    if arguments.shape:
        run_one(tuple(arguments.shape))
        return 0
    known = json.loads(arguments.read.read_text()) if arguments.read else {}
    found, worst = {}, 0.0
    print(" ".join(f"{key:>10}" for key in KEYS) + f"{'measured':>10}{'predicted':>10}{'off by':>8}   MiB")
    for title, shapes in (("fitted on", FITTED), ("checked", CHECKED)):
        print(title)
        errors = []
        for shape in shapes:
            key = json.dumps(shape)
            found[key] = known[key] if key in known else measure(shape)
            if arguments.measure:
                arguments.measure.write_text(json.dumps(found))
            errors.append(predicted(shape) / found[key] - 1)
            row = " ".join(f"{value:>10,}" for value in shape)
            print(f"{row}{found[key] / 2**20:>10.0f}{predicted(shape) / 2**20:>10.0f}{errors[-1]:>+8.0%}", flush=True)
        worst = max(map(abs, errors))
        print(f"median error {statistics.median(map(abs, errors)):.0%}, largest {worst:.0%}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())

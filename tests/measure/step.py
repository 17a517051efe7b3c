"""One whole training step beside TRL's DistillationTrainer and GKDTrainer: same models, prompts, completion length and
threads.

    python tests/measure/step.py [--vocab 16384 151936] [--repeats 5]        (needs trl: pip install -e '.[trl]')

A step is 16 prompts of 16 tokens: 64 sampled tokens each, scored, one update. Every system is a live process with one
thread; the steps alternate between them. Prints CPU seconds of a step and its peak of resident memory above that of the
loaded process, medians. Random models (2 layers, hidden 64; teacher 96), so that the vocabulary is what costs, as the
task is here.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}

PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 16, 16, 64
INPUTS = (("student", "student"), ("teacher", "teacher"), ("prompts", "prompts.jsonl"))
GIVEN = (  # to every method
    "setting=custom",
    "setting.max_prompt_tokens=64",
    f"setting.max_new_tokens={NEW_TOKENS}",
    "setting.min_continuation=1",
    f"setting.prompts_per_step={PROMPTS}",
    "setting.samples_per_prompt=1",
    "setting.steps=1000",
    "setting.learning_rate=1e-5",
    "setting.weight_decay=0.0",
    f"engine.micro_batch_prompts={PROMPTS}",
    f"engine.rows_per_batch={PROMPTS}",
    "engine.save_every=1000000",
    "engine.device=cpu",
    "evaluation=none",
    "evaluation.distance=null",
    "seed=0",
)
SYSTEMS = {  # name: what is compared
    "opd": "OPD, the reverse KL's sampled gradient (K1)",
    "tropd": "TrOPD without prefixes: K1 and forward KL on the outliers' top 64",
    "gkd": "JSD over the whole vocabulary",
    "trl-distillation": "TRL DistillationTrainer, reverse KL over the whole vocabulary (its default)",
    "trl-distillation-jsd": "TRL DistillationTrainer, JSD over the whole vocabulary",
    "trl-gkd": "TRL GKDTrainer, JSD over the whole vocabulary",
}


def make_models(root: Path, vocab: int) -> None:
    """`student` and `teacher`, with a tokenizer of one word per id, and prompts."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = {"<pad>": 0, "<eos>": 1, "<bos>": 2, **{f"w{i}": i for i in range(3, vocab)}}
    plain = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", padding_side="left"
    )
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    for name, hidden in (("student", 64), ("teacher", 96)):
        torch.manual_seed(hidden)
        config = Qwen3Config(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=2,
            num_attention_heads=hidden // 32,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            eos_token_id=1,
            pad_token_id=0,
            bos_token_id=2,
            initializer_range=0.15,
        )
        Qwen3ForCausalLM(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    rows = [" ".join(f"w{3 + (31 * i + j) % 1000}" for j in range(PROMPT_TOKENS)) for i in range(PROMPTS * 32)]
    (root / "prompts.jsonl").write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows))


def reset_peak() -> None:
    """Starts a new high-water mark of the resident memory."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field}")


class Pace:
    """Makes every step wait for a line on stdin and tells what it cost on stdout."""

    def __init__(self) -> None:
        self.loaded, self.started = 0, 0.0

    def begin(self) -> None:
        """Training begins: everything is loaded."""
        self.loaded = resident("VmRSS")
        self._wait()

    def end_of_step(self) -> None:
        """Reports, and waits for the next one."""
        print("MEASURED", cpu_seconds() - self.started, resident("VmHWM") - self.loaded, flush=True)
        self._wait()

    def _wait(self) -> None:
        if sys.stdin.readline().strip() != "step":
            os._exit(0)
        reset_peak()
        self.started = cpu_seconds()


def cpu_seconds() -> float:
    """User and system time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_harness(root: Path, method: str) -> None:
    """The harness's own job, with a recorder that keeps the pace."""
    from harness.config.sweep import planned_runs
    from harness.console.progress import RunProgress
    from harness.training import train as training
    from harness.training.recorder import StepRecorder

    pace = Pace()

    class Paced(StepRecorder):
        def on_train_begin(self, *arguments, **keywords):
            pace.begin()

        def on_step_end(self, *arguments, **keywords):
            pace.end_of_step()

    training.StepRecorder = Paced  # type: ignore[misc]
    knobs = {"tropd": ["method.prefix_schedule=none"], "gkd": ["method.student_share=1.0"]}.get(method, [])
    (config,) = planned_runs(
        [f"method={method}", *knobs, *(f"setting.{key}={root / name}" for key, name in INPUTS), *GIVEN]
    )
    folder = root / method
    folder.mkdir()
    training.train(config, folder, RunProgress(None, 1000))


def run_trl(root: Path, system: str) -> None:
    """TRL's trainer on the same models and prompts."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    tokenizer = AutoTokenizer.from_pretrained(root / "student", padding_side="left")
    student, teacher = (
        AutoModelForCausalLM.from_pretrained(root / n, dtype=torch.float32) for n in ("student", "teacher")
    )
    texts = [json.loads(line)["prompt"] for line in (root / "prompts.jsonl").read_text().splitlines()]
    pace = Pace()

    class Paced(TrainerCallback):
        def on_train_begin(self, *arguments, **keywords):
            pace.begin()

        def on_step_end(self, *arguments, **keywords):
            pace.end_of_step()

    common = {
        "output_dir": str(root / system),
        "per_device_train_batch_size": PROMPTS,
        "max_steps": 1000,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "temperature": 1.0,
    }
    if system.startswith("trl-distillation"):
        from trl import DistillationConfig, DistillationTrainer

        beta = 0.5 if system.endswith("jsd") else 1.0
        arguments = DistillationConfig(**common, max_completion_length=NEW_TOKENS, beta=beta)
        data = Dataset.from_dict({"prompt": texts})
        trainer = DistillationTrainer(
            student, teacher, args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[Paced()]
        )
    else:
        from trl.experimental.gkd import GKDConfig, GKDTrainer

        arguments = GKDConfig(**common, max_new_tokens=NEW_TOKENS, lmbda=1.0, beta=0.5)
        data = Dataset.from_dict({"prompt": texts})

        def collate(rows):
            ids = torch.tensor([tokenizer(row["prompt"]).input_ids for row in rows])
            ones = torch.ones_like(ids)
            return {
                "input_ids": ids,
                "attention_mask": ones,
                "labels": ids,
                "prompts": ids,
                "prompt_attention_mask": ones,
            }

        trainer = GKDTrainer(
            student,
            teacher,
            args=arguments,
            data_collator=collate,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[Paced()],
        )
    trainer.train()


class Worker:
    """A live process of one system."""

    def __init__(self, system: str, root: Path) -> None:
        command = [sys.executable, str(Path(__file__)), "--worker", system, "--root", str(root)]
        self.log = (root / f"{system}.log").open("w")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1
        )

    def step(self) -> tuple[float, float]:
        """CPU seconds and extra bytes of one step."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("step\n")
        for line in self.process.stdout:
            if line.startswith("MEASURED"):
                _, seconds, extra = line.split()
                return float(seconds), float(extra)
        raise RuntimeError(f"no measurement; see {self.log.name}: {Path(self.log.name).read_text()[-2000:]}")

    def stop(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None
        self.process.stdin.write("stop\n")
        self.process.wait(timeout=60)


def compare(vocab: int, repeats: int, systems: list[str], root: Path) -> None:
    """Prints the table of one vocabulary."""
    make_models(root, vocab)
    measured: dict[str, list[tuple[float, float]]] = {system: [] for system in systems}
    workers = {system: Worker(system, root) for system in systems}
    for repeat in range(repeats + 2):  # two to warm up: the optimiser's state, and the allocator
        for system, worker in workers.items():
            found = worker.step()
            if repeat >= 2:
                measured[system].append(found)
    for worker in workers.values():
        worker.stop()
    print(f"vocabulary {vocab:,}: {PROMPTS} x {NEW_TOKENS} tokens, median of {repeats}")
    print(f"{'CPU s':>8}{'extra MiB':>12}   system")
    for system, values in measured.items():
        seconds, extra = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{seconds:>8.2f}{extra / 2**20:>12.0f}   {SYSTEMS[system]}", flush=True)


def main() -> None:
    """Parent or worker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vocab", type=int, nargs="+", default=[16_384, 151_936])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    parser.add_argument("--worker")
    parser.add_argument("--root", type=Path)
    arguments = parser.parse_args()
    if arguments.worker:
        import torch

        torch.set_num_threads(1)
        run: Callable[[Path, str], None] = run_trl if arguments.worker.startswith("trl") else run_harness
        run(arguments.root, arguments.worker)
        return
    for vocab in arguments.vocab:
        with tempfile.TemporaryDirectory() as root:
            compare(vocab, arguments.repeats, arguments.systems, Path(root))


if __name__ == "__main__":
    main()

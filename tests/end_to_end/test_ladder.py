"""The settings between tiny and the paper's, run for three steps on random weights: small widths, the real vocabulary
sizes.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from harness.config.methods import register_methods
from harness.config.settings import RunConfig
from harness.config.sweep import planned_runs
from harness.console.progress import RunProgress
from harness.models.loading import load_model
from harness.models.pair import check_pair
from harness.models.sizes import KNOWN_CONFIGS
from harness.results.record import read_metrics
from harness.training.job import train


def random_models(root: Path, student: str, teacher: str) -> None:
    """Both models with the real ones' vocabularies and shapes, cut to two layers of small width, and one tokenizer, of
    bytes.
    """
    from transformers import AutoConfig

    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    plain = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges=[]))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, **special)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    for name, real in (("student", student), ("teacher", teacher)):
        fields = dict(KNOWN_CONFIGS[real])
        scale = fields["hidden_size"] / 64
        small = {
            "hidden_size": 64,
            "intermediate_size": round(fields["intermediate_size"] / scale),
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "bos_token_id": None,
        }
        small |= {"head_dim": 16} if "head_dim" in fields else {}
        torch.manual_seed(len(name))
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**fields, **small}))
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    rows = [{"prompt": "What is " + "1 + " * (i % 9) + f"{i}?"} for i in range(64)]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def config_of(root: Path, arguments: list[str]) -> RunConfig:
    """The setting as it is composed, on these models, with short completions and a step small enough for a CPU."""
    register_methods()
    changes = {
        "setting.student": root / "student",
        "setting.student_revision": "null",
        "setting.teacher": root / "teacher",
        "setting.prompts": root / "prompts.jsonl",
        "setting.max_new_tokens": 24,
        "setting.prompts_per_step": 4,
        "setting.samples_per_prompt": 2,
        "setting.steps": 3,
        "engine.micro_batch_prompts": 2,
        "engine.threads": 1,
        "engine.device": "cpu",
        "results_dir": root,
        "seed": 0,
    }
    (config,) = planned_runs([*arguments, *(f"{key}={value}" for key, value in changes.items()), "hydra.mode=RUN"])
    return config


RUNGS = {
    "experiment=qwen_gsm8k": ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"),
    "experiment=qwen3_math_24gb": ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B"),
    "setting=deepseek_math": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "Skywork/Skywork-OR1-Math-7B"),
}


@pytest.mark.slow
@pytest.mark.parametrize("rung", RUNGS)
def test_three_steps_of_every_line(tmp_path: Path, rung: str) -> None:
    """TrOPD has every part: a teacher's prefix, the sampled token, the top k. In the paper's pair one head is padded
    further.
    """
    random_models(tmp_path, *RUNGS[rung])
    config = config_of(tmp_path, [rung, "method=tropd", "setting.min_continuation=2"])
    assert check_pair(config) == 151_936
    assert config.setting.dtype == "bfloat16"
    folder = tmp_path / "run"
    folder.mkdir()
    train(config, folder, RunProgress(None, 3))
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["tokens/student"] > 0 and row["grad_norm"] > 0 for row in rows)
    assert rows[0]["tokens/teacher"] > 0
    trained = load_model(str(folder / "checkpoint"), dtype="bfloat16")
    assert trained.get_output_embeddings().weight.shape[0] == 151_936


@pytest.mark.slow
def test_lora_trains_adapters_only_and_leaves_a_plain_model(tmp_path: Path) -> None:
    random_models(tmp_path, *RUNGS["experiment=qwen_gsm8k"])
    arguments = ["experiment=qwen_gsm8k", "method=opd", "setting.lora_rank=4", "setting.dtype=float32"]
    config = config_of(tmp_path, [*arguments, "setting.learning_rate=1e-3"])
    full = dataclasses.replace(config.setting, lora_rank=0)
    assert config.setting.training_hash() != full.training_hash()
    assert config.setting.by_value()["lora_rank"] == 4 and "lora_rank" not in full.by_value()
    folder = tmp_path / "run"
    folder.mkdir()
    train(config, folder, RunProgress(None, 3))
    before, after = (load_model(str(path)).state_dict() for path in (tmp_path / "student", folder / "checkpoint"))
    assert before.keys() == after.keys()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    linear = {name for name in before if "proj" in name and name.endswith("weight")}
    assert changed == linear  # each by B·A
    rank = torch.linalg.matrix_rank((after[(name := sorted(linear)[0])] - before[name]).double(), rtol=1e-4)
    assert 0 < rank <= 4


@pytest.mark.slow
def test_a_lora_run_goes_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.training.trainer import DistillationTrainer

    random_models(tmp_path, *RUNGS["experiment=qwen_gsm8k"])
    arguments = ["experiment=qwen_gsm8k", "method=opd", "setting.lora_rank=4", "setting.dtype=float32"]
    config = config_of(tmp_path, [*arguments, "engine.save_every=1"])
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    train(config, whole, RunProgress(None, 3))
    original = DistillationTrainer.get_batch_samples

    def dies(self, *rest):
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return original(self, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DistillationTrainer, "get_batch_samples", dies)
        train(config, killed, RunProgress(None, 3))
    train(config, killed, RunProgress(None, 3))
    expected, found = (load_model(str(folder / "checkpoint")).state_dict() for folder in (whole, killed))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())

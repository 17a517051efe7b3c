"""What is found out about a model at its start: randomness, contexts, adapters, heads, generation configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, Phi3Config, Qwen2Config, Qwen2ForCausalLM

from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.models.adapters import add_lora, merged_weights
from harness.models.backbone import hidden_states
from harness.models.contexts import context_length_of
from harness.models.loading import (
    load_config,
    load_model,
    load_tokenizer,
    mend_generation_config,
)
from harness.models.pair import check_contexts, shared_vocab_size
from harness.models.randomness import check_training_mode, switch_off_randomness
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.hf import HFEngine
from harness.scoring import Completion, ScoreRequest
from harness.scoring.hf import HFScorer
from harness.tiny.language import build_tokenizer
from tests.models.architectures import VOCAB, build
from tests.training.test_step import config_for, run


def qwen2(**fields: Any) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=64, num_key_value_heads=1, initializer_range=0.3, **sizes, **fields))


def test_rates_are_off_in_modules_and_configuration() -> None:
    model = qwen2(attention_dropout=0.3)
    switch_off_randomness(model)
    assert model.config.attention_dropout == 0
    assert [layer.self_attn.attention_dropout for layer in model.model.layers] == [0, 0]


class Noisy(nn.Module):
    """Random in training mode, at no rate."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states + torch.randn_like(states) if self.training else states


class NoisyCheckpointed(Noisy):
    """The same in a module that asks for training mode for another reason."""

    gradient_checkpointing = False


def test_what_is_random_without_a_rate_is_held_in_eval_mode() -> None:
    model = qwen2()
    model.model.norm = nn.Sequential(model.model.norm, Noisy())
    check_training_mode(model, "noisy")
    ids = torch.arange(8)[None]
    states = [hidden_states(model.train(mode), ids, use_cache=False).last_hidden_state for mode in (True, False)]
    assert torch.equal(*states)
    assert model.training is False and model.train().training and model.model.layers[0].training  # checkpointing asks


def test_what_stays_random_is_refused_as_a_student() -> None:
    model = qwen2()
    model.model.norm = nn.Sequential(model.model.norm, NoisyCheckpointed())
    state = torch.random.get_rng_state()
    with pytest.raises(UserError, match="training mode"):
        check_training_mode(model, "noisy")
    assert torch.equal(state, torch.random.get_rng_state())


class Doubled(torch.autograd.Function):
    """The same state, twice the gradient."""

    @staticmethod
    def forward(_: Any, states: torch.Tensor) -> torch.Tensor:
        return states.clone()

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return 2 * gradients[0]


class OtherGradient(nn.Module):
    """Computes the same in both modes, and learns something else in training mode."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return Doubled.apply(states) if self.training else states


class OtherGradientCheckpointed(OtherGradient):
    """The same in a module that asks for training mode for another reason."""

    gradient_checkpointing = False


def test_another_gradient_in_training_mode_is_found() -> None:
    """Held in eval mode where that can be done, else refused; no weight gets a gradient by the trial."""
    model = qwen2()
    model.model.layers[0].mlp = nn.Sequential(model.model.layers[0].mlp, OtherGradient())
    check_training_mode(model, "other")
    assert not model.train().model.layers[0].mlp[1].training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.model.layers[0].mlp[1] = OtherGradientCheckpointed()
    with pytest.raises(UserError, match="training mode"):
        check_training_mode(model, "other")


class OneMode(torch.autograd.Function):
    """Asserts that its gradient is not asked for, as Reformer's is in eval mode."""

    @staticmethod
    def forward(_: Any, states: torch.Tensor) -> torch.Tensor:
        return states.clone()

    @staticmethod
    def backward(_: Any, *__: torch.Tensor) -> torch.Tensor:
        raise AssertionError("call model.train()\nfirst")


class TrainingModeAlone(nn.Module):
    """Has no gradient in eval mode."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states if self.training else OneMode.apply(states)


def test_a_class_that_cannot_be_tried_in_both_modes_is_refused_as_a_student() -> None:
    model = qwen2()
    model.model.norm = nn.Sequential(model.model.norm, TrainingModeAlone())
    with pytest.raises(UserError, match=r"^'own' .* \(AssertionError: call model\.train\(\) first\); this model class"):
        check_training_mode(model, "own")


def test_contexts_of_configurations() -> None:
    """Longrope's original length; what a configuration of a VLM says in its text part; nothing said."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 48, "long_factor": [4.0] * 48}
    phi = Phi3Config(
        max_position_embeddings=131_072,
        original_max_position_embeddings=4096,
        rope_parameters={**rope, "factor": 32.0, "original_max_position_embeddings": 4096},
    )
    assert context_length_of(phi) == 4096
    assert context_length_of(Phi3Config(max_position_embeddings=4096)) == 4096
    assert context_length_of(GPT2Config(n_positions=16)) == 16
    from transformers import Gemma3Config, MambaConfig

    assert context_length_of(Gemma3Config(text_config={"max_position_embeddings": 77})) == 77
    assert context_length_of(MambaConfig()) == 2**31


def test_a_row_does_not_change_with_its_neighbours_under_longrope(tmp_path: Path) -> None:
    """A longer neighbour would take the short row beyond 48 positions, where all factors change."""
    engine = HFEngine(load_model(str(build("phi3_longrope", tmp_path))), VOCAB)
    short, long = RolloutRequest("a", tuple(range(10, 20)), 1), RolloutRequest("b", tuple(range(10, 56)), 2)
    (alone,) = engine.generate([short], Sampling(16))
    assert engine.generate([short, long], Sampling(16))[0].completion_ids == alone.completion_ids
    with pytest.raises(UserError, match="context of 48"):
        engine.generate([RolloutRequest("c", tuple(range(10, 70)), 3)], Sampling(16))


@pytest.fixture
def paired(random_pair: Path, tmp_path: Path) -> RunConfig:
    """A run whose two models have 2,048 positions; 16 new tokens."""
    return config_for(random_pair, tmp_path, None)


@pytest.mark.parametrize(
    ("student", "teacher", "prompts", "reference", "message"),
    [
        (100, 100, {"a": 84}, 0, None),
        (100, 100, {"a": 5, "b": 100}, 0, "prompt 'b' has 100 tokens.*student's context of 100"),
        (200, 100, {"a": 84}, 0, None),  # 84 + 16 = 100
        (200, 100, {"a": 90}, 0, r"may have 106.*max_new_tokens=10 "),
        (95, 100, {"a": 90}, 0, None),  # the student stops at 95
        (200, 200, {"a": 5}, 201, "reference has 201 tokens"),
    ],
)
def test_lengths_are_checked_before_the_first_step(
    paired: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
    student: int,
    teacher: int,
    prompts: dict[str, int],
    reference: int,
    message: str | None,
) -> None:
    lengths = {paired.setting.student: student, paired.setting.teacher: teacher}
    configs = {name: GPT2Config(n_positions=length) for name, length in lengths.items()}
    monkeypatch.setattr("harness.models.pair.load_config", lambda name, revision: configs[name])
    if message is None:
        check_contexts(paired, prompts, reference)
    else:
        with pytest.raises(UserError, match=message):
            check_contexts(paired, prompts, reference)


def test_a_head_smaller_than_the_tokenizer_is_one_sentence(random_pair: Path) -> None:
    tokenizer, config = build_tokenizer(), load_config(str(random_pair / "student"))
    needed = max(tokenizer.get_vocab().values()) + 1
    small = type(config)(**{**config.to_dict(), "vocab_size": needed - 1})
    with pytest.raises(UserError, match=f"the teacher has a head of {needed - 1} rows"):
        shared_vocab_size((tokenizer, config), (tokenizer, small), 8)


def test_an_invalid_generation_config_is_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = qwen2()
    model.generation_config = GenerationConfig(do_sample=False, temperature=0.6, eos_token_id=[1, 5])
    with pytest.raises(ValueError, match="temperature"):
        model.save_pretrained(tmp_path)
    mend_generation_config(model, "qwen")
    assert "generation_config of qwen is invalid" in capsys.readouterr().err
    model.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == [1, 5]
    mend_generation_config(model, "qwen")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "part"), [("gpt2", "c_attn"), ("qwen3_moe", "experts"), ("qwen3_5_text", "in_proj")])
def test_lora_reaches_every_linear_map(name: str, part: str, tmp_path: Path) -> None:
    """Starts as the zero map, gets a gradient, and merges to what it computed."""
    pytest.importorskip("peft")
    model = load_model(str(build(name, tmp_path)))
    ids = torch.arange(12)[None]
    before = model(input_ids=ids).logits
    adapters = add_lora(model, 4)
    torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=0, atol=1e-5)
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert any(part in key for key in trained)
    with torch.no_grad():
        for key, parameter in trained.items():
            if "lora_B" in key:
                parameter.normal_(std=0.1)
    adapted = model(input_ids=ids).logits
    adapted.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained.values())
    assert (adapted - before).abs().max() > 0.1
    torch.testing.assert_close(adapters.merge_and_unload()(input_ids=ids).logits, adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "qwen3_moe"])
def test_merged_weights_are_those_of_the_merged_model(name: str, tmp_path: Path) -> None:
    """Under the names of the base; what is adapted has moved, and the model's own weights stay as they are."""
    pytest.importorskip("peft")
    model = load_model(str(build(name, tmp_path)))
    start = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    adapters = add_lora(model, 4)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                weight.normal_(std=0.1)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    found = dict(merged_weights(model))
    assert all(torch.equal(weight, before[key]) for key, weight in model.named_parameters())
    merged = dict(adapters.merge_and_unload().named_parameters())
    assert found.keys() == start.keys() == merged.keys()
    for key, weight in merged.items():
        torch.testing.assert_close(found[key], weight, rtol=0, atol=1e-6, msg=key)
    moved = {key for key, weight in found.items() if not torch.equal(weight, start[key])}
    assert any("attn" in key for key in moved) and not any("norm" in key or "ln_" in key for key in moved)


def test_lora_on_mamba_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    with pytest.raises(UserError, match="takes no adapters"):
        add_lora(load_model(str(build("mamba", tmp_path))), 4)


def test_an_adapter_folder_is_its_base_with_the_adapters_merged(random_pair: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = load_model(str(random_pair / "student"))
    adapters = add_lora(base, 4)
    with torch.no_grad():
        for key, parameter in base.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.1)
    ids = torch.arange(12)[None]
    expected = base(input_ids=ids).logits
    adapters.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    torch.testing.assert_close(loaded(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert load_config(str(tmp_path)).hidden_size == 64
    assert load_tokenizer(str(tmp_path)).get_vocab() == build_tokenizer().get_vocab()
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(written | {"base_model_name_or_path": None}))
    with pytest.raises(UserError, match="base_model_name_or_path"):
        load_model(str(tmp_path))


def test_padding_that_leaks_into_a_state_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a mask that the class does not get to see, rows of different length may not share a batch."""
    from harness.rollout import own_cache
    from harness.rollout.hf import way_of

    model = load_model(str(build("qwen3_5_text", tmp_path)))
    forward = own_cache.hidden_states
    monkeypatch.setattr(
        own_cache,
        "hidden_states",
        lambda model, ids, attention_mask=None, **given: forward(model, ids, **given),
    )
    with torch.inference_mode():
        assert way_of(HFEngine(model, VOCAB)) == own_cache.EQUAL


@pytest.mark.parametrize("rows_per_batch", [512, 2, 1])
def test_a_hybrids_completion_does_not_depend_on_its_batch(
    rows_per_batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ragged prompts, rows that stop early and leave, and batches of any size: the same tokens as one by one."""
    monkeypatch.setattr("harness.rollout.hf.COMPACT_BELOW", 1.0)
    engine = HFEngine(load_model(str(build("qwen3_5_text", tmp_path))), VOCAB, rows_per_batch=rows_per_batch)
    asked = [RolloutRequest(str(n), tuple(range(5, 5 + n)), seed=n) for n in (4, 9, 9, 17, 6)]
    sampling = Sampling(20, stop_ids=tuple(range(0, 96, 7)))
    together = engine.generate(asked, sampling)
    for request, rollout in zip(asked, together, strict=True):
        (alone,) = engine.generate([request], sampling)
        assert alone.completion_ids == rollout.completion_ids
        assert alone.logprobs == pytest.approx(rollout.logprobs, abs=1e-5)
    assert len({len(rollout.completion_ids) for rollout in together}) > 1


def test_a_qwen3_5_like_pair_trains(tmp_path: Path) -> None:
    """From prompts to a checkpoint that loads, with the teacher's prefixes and the direct term."""
    from baselines.tropd import TrOPD

    for side, seed in (("student", 1), ("teacher", 2)):
        build("qwen3_5_text", tmp_path / "pair" / side, seed)
        build_tokenizer().save_pretrained(tmp_path / "pair" / side)
    before = load_model(str(tmp_path / "pair" / "student")).state_dict()
    config = config_for(tmp_path / "pair", tmp_path, TrOPD())
    weights, rows = run(config, tmp_path / "run")
    assert len(rows) == config.setting.steps
    assert all(not torch.equal(weights[key], before[key]) for key in before if "layers" in key and "norm" not in key)


@pytest.mark.parametrize("name", ["zamba2", "qwen3_5_text"])
def test_a_hybrids_reward_is_of_the_scoring_pass(name: str, tmp_path: Path) -> None:
    """Zamba2's cached step leaves out the clamp of its whole pass: without it, they agree."""
    from baselines.opd import OPD

    for side, seed in (("student", 1), ("teacher", 2)):
        build(name, tmp_path / "pair" / side, seed)
        build_tokenizer().save_pretrained(tmp_path / "pair" / side)
    _, (row, *_) = run(config_for(tmp_path / "pair", tmp_path, OPD(), steps=1), tmp_path / "run")
    assert 0 < row["mismatch/max"] < 5e-3  # exactly 0 where the sampler's are taken over
    model = load_model(str(tmp_path / "pair" / "student"))
    apart = []
    for clamped in (True, False):
        for module in model.modules() if not clamped else ():
            if hasattr(module, "time_step_limit"):
                module.time_step_limit = (0.0, float("inf"))
        (text,) = HFEngine(model, VOCAB).generate([RolloutRequest("0", tuple(range(5, 20)), seed=0)], Sampling(40))
        scored = HFScorer(model, VOCAB).score([Completion(text.prompt_ids, text.completion_ids)], ScoreRequest())
        apart.append(float((scored.signal.logprobs[0] - torch.tensor(text.logprobs)).abs().max()))
    assert apart[1] < 2e-5
    assert (apart[0] > 5e-5) == (name == "zamba2")


def test_dropout_is_off_while_the_student_is_trained(tmp_path: Path) -> None:
    """GPT-2 as published has dropout 0.1 in three places: two runs whose dropout would be drawn otherwise are one."""
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, attn_pdrop=0.5, embd_pdrop=0.5, resid_pdrop=0.5)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model = load_model(str(tmp_path)).train()
    check_training_mode(model, "gpt2")
    ids = torch.arange(8)[None]
    torch.manual_seed(1)
    first = hidden_states(model, ids, use_cache=False).last_hidden_state
    assert torch.equal(first, hidden_states(model, ids, use_cache=False).last_hidden_state)

"""The KV-cache sampler against full forwards and against itself."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from harness.errors import UserError
from harness.numerics.logprobs import merge_
from harness.rollout import RolloutRequest, Sampling
from harness.rollout import hf as hf_module
from harness.rollout.hf import HFEngine, draw_tokens, group_by_length, truncate

SAMPLING = Sampling(max_new_tokens=20, stop_ids=(1,))


def requests(count: int = 24, prefixes: bool = True) -> list[RolloutRequest]:
    """Ragged prompts, some with prefixes, some asked for twice."""
    rng = random.Random(0)
    made = []
    for i in range(count):
        prompt = tuple(rng.randrange(3, 60) for _ in range(rng.randrange(4, 30)))
        prefix = tuple(rng.randrange(3, 60) for _ in range(rng.randrange(0, 25))) if prefixes and i % 2 else ()
        made.append(RolloutRequest(str(i), prompt, seed=i, prefix_ids=prefix))
    return [*made, RolloutRequest("0", made[0].prompt_ids, seed=999, sample_index=1)]


@pytest.fixture(scope="module")
def engine(random_pair) -> HFEngine:
    from harness.models.loading import load_model

    return HFEngine(load_model(str(random_pair / "student")), 64, policy_version=7)


def test_logprobs_equal_a_full_forward(engine: HFEngine) -> None:
    for rollout in engine.generate(requests(), SAMPLING):
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
        truth = engine.model(ids).logits[0].log_softmax(-1)
        start = len(rollout.prompt_ids) - 1
        expected = truth[range(start, start + len(rollout.completion_ids)), list(rollout.completion_ids)]
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, rtol=0, atol=1e-5)


def test_form_of_a_rollout(engine: HFEngine) -> None:
    asked = requests()
    for request, rollout in zip(asked, engine.generate(asked, SAMPLING), strict=True):
        assert rollout.prompt_ids == request.prompt_ids
        assert rollout.completion_ids[: rollout.prefix_len] == request.prefix_ids
        assert (rollout.prompt_id, rollout.sample_index) == (request.prompt_id, request.sample_index)
        assert rollout.policy_version == 7
        written = rollout.completion_ids[rollout.prefix_len :]
        assert 1 not in written[:-1]
        assert rollout.stop_reason == ("stop" if written[-1] == 1 else "length")
        assert len(written) == 20 or rollout.stop_reason == "stop"


def test_two_end_tokens_as_one_are_drawn_and_scored_together(engine: HFEngine) -> None:
    """Against full forwards: the first stands for both with the sum of their probabilities, the
    other is never written.
    """
    asked = requests()
    ends = 0
    for rollout in engine.generate(asked, Sampling(20, stop_ids=(9, 1), one_end=True, record_stops=True)):
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
        probabilities = engine.model(ids).logits[0].double().softmax(-1)
        start = len(rollout.prompt_ids) - 1
        rows = probabilities[start : start + len(rollout.completion_ids)]
        union = rows[:, [1, 9]].sum(-1)
        written = rollout.completion_ids[rollout.prefix_len :]
        assert 1 not in written and 9 not in written[:-1]
        expected = rows[range(len(rows)), list(rollout.completion_ids)].log()
        if rollout.stop_reason == "stop":
            ends += 1
            assert written[-1] == 9
            expected[-1] = union[-1].log()
        own = slice(rollout.prefix_len, None)
        torch.testing.assert_close(torch.tensor(rollout.logprobs)[own].double(), expected[own], rtol=0, atol=1e-5)
        stops = torch.tensor(rollout.stop_logprobs).double()
        torch.testing.assert_close(stops, union.log()[own], rtol=0, atol=1e-5)
    assert ends > 5  # else there is nothing to see


def test_recording_the_stops_changes_nothing(engine: HFEngine) -> None:
    """The mass on stopping under the model itself, whether or not the end tokens are one."""
    plain = engine.generate(requests(6), SAMPLING)
    for rollout, expected in zip(
        engine.generate(requests(6), Sampling(20, stop_ids=(1,), record_stops=True)), plain, strict=True
    ):
        assert (rollout.completion_ids, rollout.logprobs) == (expected.completion_ids, expected.logprobs)
        assert expected.stop_logprobs == ()
        assert len(rollout.stop_logprobs) == len(rollout.completion_ids) - rollout.prefix_len
        if rollout.stop_reason == "stop":
            assert rollout.stop_logprobs[-1] == pytest.approx(rollout.logprobs[-1], abs=1e-5)


@pytest.mark.parametrize(("rows", "compact"), [(None, 0.8), (3, 0.8), (None, 0.0), (1, 1.0)])
def test_a_completion_does_not_depend_on_its_batch(
    engine: HFEngine, monkeypatch, rows: int | None, compact: float
) -> None:
    reference = engine.generate(requests(), SAMPLING)
    monkeypatch.setattr(hf_module, "COMPACT_BELOW", compact)
    shuffled = requests()
    random.Random(1).shuffle(shuffled)
    other_engine = HFEngine(engine.model, 64, policy_version=7, rows_per_batch=rows)
    again = {(r.prompt_id, r.sample_index): r for r in other_engine.generate(shuffled, SAMPLING)}
    for rollout in reference:
        other = again[rollout.prompt_id, rollout.sample_index]
        assert other.completion_ids == rollout.completion_ids
        assert other.logprobs == pytest.approx(rollout.logprobs, abs=1e-5)


def test_several_batches_answer_in_the_order_of_the_requests(engine: HFEngine) -> None:
    """25 requests in batches of 4: the shortest together, every answer and every call at the place of its request."""
    asked, called, written = requests(), {}, []
    batches = HFEngine(engine.model, 64, rows_per_batch=4)
    found = batches.generate(asked, SAMPLING, written.append, lambda row, rollout: called.update({row: rollout}))
    assert [(r.prompt_id, r.sample_index, r.prompt_ids) for r in found] == [
        (r.prompt_id, r.sample_index, r.prompt_ids) for r in asked
    ]
    assert called == dict(enumerate(found))
    assert max(written) == 4  # rows that are decoded side by side
    assert sum(written) == sum(len(r.completion_ids) - r.prefix_len for r in found)


def test_finished_rows_leave_the_batch_and_prompts_are_read_in_the_order_of_their_length(
    engine: HFEngine, monkeypatch
) -> None:
    """Neither changes a token (above); both are what makes the sampler fast."""
    asked, lengths, rows = requests(), [], []

    def grouped(given):
        lengths.extend(given)
        return group_by_length(given)

    def watched(model, ids, **arguments):
        rows.append(tuple(ids.shape))
        return hidden_states(model, ids, **arguments)

    hidden_states = hf_module.hidden_states
    monkeypatch.setattr(hf_module, "group_by_length", grouped)
    monkeypatch.setattr(hf_module, "hidden_states", watched)
    found = engine.generate(asked, SAMPLING)
    assert lengths == sorted({r.prompt_id: len(r.prompt_ids) + len(r.prefix_ids) for r in asked}.values())
    decoded = [count for count, width in rows if width == 1]
    written = [len(rollout.completion_ids) - rollout.prefix_len for rollout in found]
    assert sum(r.stop_reason == "stop" for r in found) > 5  # else there is nothing to see
    for step, count in enumerate(decoded, 1):
        alive = sum(length > step for length in written)
        assert alive <= count <= alive / 0.8


def test_the_model_is_left_as_it_was(engine: HFEngine, random_pair) -> None:
    from harness.models.loading import load_model

    model = load_model(str(random_pair / "student"))
    for training in (True, False):
        model.train(training)
        (rollout,) = HFEngine(model, 64).generate([RolloutRequest("a", (2, 5, 9), seed=3)], SAMPLING)
        assert model.training is training
        assert rollout.policy_version == 0


def test_bfloat16_weights_give_float32_logprobs(random_pair) -> None:
    """Against a full forward in bfloat16, of which the head is in float32: logits of some 10 have a rounding of 2^-8 of
    that.
    """
    from harness.models.loading import load_model

    model = load_model(str(random_pair / "student"), dtype="bfloat16")
    for rollout in HFEngine(model, 64).generate(requests(6), SAMPLING):
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
        hidden = model.model(ids).last_hidden_state[0].float()
        truth = (hidden @ model.lm_head.weight.float().T).log_softmax(-1)
        start = len(rollout.prompt_ids) - 1
        expected = truth[range(start, start + len(rollout.completion_ids)), list(rollout.completion_ids)]
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, rtol=0, atol=10 * 2**-8)


def test_a_prefix_of_its_own_tokens_changes_nothing(engine: HFEngine) -> None:
    """Uniforms belong to completion positions: spliced back in, a rollout's beginning leads to the same end."""
    (whole,) = engine.generate([RolloutRequest("a", (2, 5, 9), seed=3)], SAMPLING)
    for cut in (1, len(whole.completion_ids) - 1):
        request = RolloutRequest("a", (2, 5, 9), seed=3, prefix_ids=whole.completion_ids[:cut])
        (rest,) = engine.generate([request], Sampling(20 - cut, stop_ids=(1,)))
        assert rest.completion_ids == whole.completion_ids
        assert rest.logprobs == pytest.approx(whole.logprobs, abs=1e-5)


def test_works_with_another_architecture() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
    )
    engine = HFEngine(model.eval(), 64)
    for rollout in engine.generate(requests(6), Sampling(8, stop_ids=(1,))):
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
        truth = model(ids).logits[0].log_softmax(-1)
        start = len(rollout.prompt_ids) - 1
        expected = truth[range(start, start + len(rollout.completion_ids)), list(rollout.completion_ids)]
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, rtol=0, atol=1e-5)


def test_context_is_a_limit_not_a_crash() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=1, n_head=2))
    engine = HFEngine(model.eval(), 64)
    (rollout,) = engine.generate([RolloutRequest("a", (5,) * 12, seed=0)], Sampling(100))
    assert len(rollout.completion_ids) == 4
    assert rollout.stop_reason == "length"
    with pytest.raises(UserError, match="no room"):
        engine.generate([RolloutRequest("long", (5,) * 16, seed=0)], Sampling(100))


def test_a_finished_row_may_run_over_the_context(monkeypatch) -> None:
    """A row of 14 tokens ends after 2; kept in the batch, it must not ask for a position that the
    model does not have.
    """
    monkeypatch.setattr(hf_module, "COMPACT_BELOW", 0.0)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=1, n_head=2))
    engine = HFEngine(model.eval(), 64)
    short, long = RolloutRequest("short", (5, 6), seed=0), RolloutRequest("long", (7,) * 14, seed=1)
    together, alone = engine.generate([short, long], Sampling(100)), engine.generate([short], Sampling(100))
    assert [len(rollout.completion_ids) for rollout in together] == [14, 2]
    assert together[0].completion_ids == alone[0].completion_ids


def test_an_impossible_token_is_never_drawn() -> None:
    """Not even at the uniform 0, nor behind it: probabilities 0, 1/2, 0, 1/2, 0."""
    logits = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).log().expand(4, 5)
    uniforms = torch.tensor([0.0, 0.5 - 1e-12, 0.5, 1 - 1e-16], dtype=torch.float64)
    assert draw_tokens(logits, uniforms, Sampling(1))[0].tolist() == [1, 1, 3, 3]


def test_a_long_tail_of_rare_tokens_is_drawn_from() -> None:
    """A thousand tokens of 1e-9 behind one of almost 1, each at the middle of its share: in float32 their sum would not
    move.
    """
    logits = torch.tensor([0.0, *[-20.72] * 1000])
    cumulative = logits.softmax(-1).double().cumsum(-1)
    picked = torch.tensor([1, 2, 500, 999, 1000])
    uniforms = (cumulative[picked - 1] + cumulative[picked]) / 2 / cumulative[-1]
    tokens, _ = draw_tokens(logits.expand(len(picked), 1001), uniforms, Sampling(1))
    assert torch.equal(tokens, picked)


def test_draws_follow_the_distribution() -> None:
    """100,000 uniforms on a grid hit every token its probability's share of times, to one part in 100,000."""
    n = 100_000
    probabilities = torch.tensor([0.1, 0.0, 0.25, 0.05, 0.6])
    uniforms = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens, logprobs = draw_tokens(probabilities.log().expand(n, 5), uniforms, Sampling(1))
    shares = torch.bincount(tokens, minlength=5) / n
    torch.testing.assert_close(shares, probabilities, rtol=0, atol=2e-5)
    torch.testing.assert_close(logprobs, probabilities.log()[tokens], rtol=0, atol=1e-6)


def test_draws_follow_the_distribution_of_events() -> None:
    """The same grid where tokens 3 and 2 are one event: 3 is hit by the share of both, 2 by none."""
    n = 100_000
    probabilities = torch.tensor([0.1, 0.0, 0.25, 0.05, 0.6])
    logits = probabilities.log().repeat(n, 1)
    merge_(logits, (3, 2))
    uniforms = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens, logprobs = draw_tokens(logits, uniforms, Sampling(1))
    together = torch.tensor([0.1, 0.0, 0.0, 0.3, 0.6])
    torch.testing.assert_close(torch.bincount(tokens, minlength=5) / n, together, rtol=0, atol=2e-5)
    torch.testing.assert_close(logprobs, together.log()[tokens], rtol=0, atol=1e-6)


def test_temperature_and_greedy() -> None:
    logits = torch.tensor([[0.0, 1.0, 3.0]]).expand(1000, 3)
    uniforms = torch.from_numpy(np.linspace(0, 0.999, 1000))
    tokens, logprobs = draw_tokens(logits, uniforms, Sampling(1, temperature=2.0))
    expected = (logits[0] / 2).softmax(-1)
    torch.testing.assert_close(torch.bincount(tokens, minlength=3) / 1000, expected, rtol=0, atol=3e-3)
    torch.testing.assert_close(logprobs, logits[0].log_softmax(-1)[tokens])  # log-probs stay at temperature 1
    assert draw_tokens(logits, uniforms, Sampling(1, temperature=0.0))[0].unique().tolist() == [2]


def test_truncation() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.25, 0.15]])
    # nucleus 0.7: 0.5 (0 before it) and 0.25 (0.5 before it) stay; 0.15 has 0.75 before it
    assert truncate(probabilities, 0.7, 0).tolist() == [[0.0, 0.5, 0.25, 0.0]]
    # without truncation the tail stays, also where float32 sees no mass behind it
    assert truncate(torch.tensor([[1.0, 1e-12]]), 1.0, 0).tolist() == [[1.0, torch.tensor(1e-12).item()]]
    # top 3: 0.1 goes; 0.9 remains and is renormalised
    torch.testing.assert_close(truncate(probabilities, 1.0, 3), torch.tensor([[0.0, 0.5, 0.25, 0.15]]) / 0.9)


@pytest.mark.parametrize("seed", range(5))
def test_prefill_groups_are_the_cheapest_split(seed: int) -> None:
    """Against every way of cutting a short list; groups are consecutive and complete."""
    lengths = sorted(random.Random(seed).choices(range(10, 400), k=9))

    def cost(groups: list[list[int]]) -> int:
        return sum(len(g) * lengths[g[-1]] + hf_module.FORWARD_COST_TOKENS for g in groups)

    groups = group_by_length(lengths)
    assert [i for group in groups for i in group] == list(range(9))
    every_split = itertools.product([False, True], repeat=8)
    assert cost(groups) == min(cost(_split(cuts)) for cuts in every_split)


def _split(cuts: tuple[bool, ...]) -> list[list[int]]:
    groups = [[0]]
    for i, cut in enumerate(cuts, 1):
        groups.append([i]) if cut else groups[-1].append(i)
    return groups

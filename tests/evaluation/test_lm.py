"""harness.evaluation.lm: what is asked of the engine, and what is kept of its answers."""

import pytest
from lm_eval.api.instance import Instance

from harness.errors import UserError
from harness.evaluation.lm import EngineLM
from harness.seeds import seed_of
from tests.scripted import ScriptedEngine

from .conftest import make_tokenizer

SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "max_gen_toks": 50, "until": []}


def instance(prompt="<s><|user|>2+2<|end|><|assistant|>", doc_id=3, repeats=1, **kwargs) -> Instance:
    doc = {"id": "p3", "problem": "2+2", "answer": "4"}
    return Instance("generate_until", doc, (prompt, {**SAMPLING, **kwargs}), 0, ("toy", doc_id, repeats))


def lm_of(tokenizer, script="four", max_length=200, **kwargs) -> tuple[EngineLM, ScriptedEngine]:
    engine = ScriptedEngine(script if callable(script) else lambda r: script, tokenizer)
    return EngineLM(engine, tokenizer, run_seed=11, max_length=max_length, quiet=True, **kwargs), engine


def test_one_instance_k_times_gives_k_samples_with_their_own_seeds(tokenizer):
    lm, engine = lm_of(tokenizer, lambda r: f"sample {r.sample_index}")
    twice, once = instance(doc_id=3), instance(doc_id=4)
    assert lm.generate_until([twice, twice, once]) == ["sample 0", "sample 1", "sample 0"]
    coordinates = [(3, 0), (3, 1), (4, 0)]
    assert [r.seed for r in engine.requests] == [seed_of("evaluation", 11, "toy", d, k) for d, k in coordinates]
    assert len(lm.samples["toy", 3]) == 2 and lm.samples["toy", 3][0].stop_reason == "stop"
    assert lm.samples["toy", 3][0].tokens == len("sample 0") + 1  # one token a byte, and the end token


def test_the_prompt_of_a_chat_template_has_one_bos_and_that_of_a_plain_text_too(tokenizer):
    lm, engine = lm_of(tokenizer)
    text = lm.apply_chat_template([{"role": "user", "content": "2+2"}])
    lm.generate_until([instance(text)])
    assert list(engine.requests[0].prompt_ids) == tokenizer.encode("<|user|>2+2<|end|><|assistant|>")  # adds its BOS
    assert engine.requests[0].prompt_ids.count(tokenizer.bos_token_id) == 1

    plain = make_tokenizer(chat_template=None)
    lm, engine = lm_of(plain)
    lm.generate_until([instance("2+2=")])
    assert list(engine.requests[0].prompt_ids) == [plain.bos_token_id, *plain.encode("2+2=", add_special_tokens=False)]


def test_generation_settings_become_a_sampling(tokenizer):
    seen = []
    lm, engine = lm_of(tokenizer)
    engine.generate, generate = lambda r, s, *rest: seen.append(s) or generate(r, s, *rest), engine.generate
    for kwargs in ({}, {"do_sample": False}, {"top_k": -1}):
        lm.generate_until([instance(**kwargs)])
    sampled, greedy, no_top_k = seen
    assert (sampled.temperature, sampled.top_p, sampled.top_k, sampled.max_new_tokens) == (0.7, 0.9, 5, 50)
    assert sampled.stop_ids == (tokenizer.eos_token_id,) and greedy.temperature == 0.0 and no_top_k.top_k == 0
    with pytest.raises(UserError, match="min_p"):
        lm.generate_until([instance(min_p=0.1)])


def test_a_sample_that_reaches_the_limit_counts_as_truncated(tokenizer):
    lm, _ = lm_of(tokenizer, "x" * 99)
    assert lm.generate_until([instance()]) == ["x" * 50]
    assert (lm.samples["toy", 3][0].stop_reason, lm.samples["toy", 3][0].tokens) == ("length", 50)


def test_a_prompt_is_never_shortened(tokenizer):
    prompt_tokens = len("2+2") + 4  # BOS, user, end, assistant
    lm, engine = lm_of(tokenizer, "x" * 99, max_length=prompt_tokens + 3)
    assert lm.generate_until([instance()]) == ["xxx"]  # what the prompt leaves of the positions
    assert len(engine.requests[0].prompt_ids) == prompt_tokens
    shorter = instance("<s><|user|>2<|end|><|assistant|>", doc_id=4)
    assert lm.generate_until([shorter, instance(doc_id=5)]) == ["xxxxx", "xxx"]  # each its own, in one call
    assert lm.samples["toy", 5][0].stop_reason == "length" and lm.samples["toy", 5][0].tokens == 3
    lm, _ = lm_of(tokenizer, max_length=prompt_tokens)
    with pytest.raises(UserError, match=r"toy/p3 has 7 tokens and leaves no room in the model's 7 positions"):
        lm.generate_until([instance()])


def test_until_cuts_the_text(tokenizer):
    lm, _ = lm_of(tokenizer, "one\n\ntwo" + "x" * 99)
    assert lm.generate_until([instance(until=["\n\n", "two"])]) == ["one"]
    assert lm.samples["toy", 3][0].stop_reason == "stop"  # the answer is whole, though the engine wrote on


def test_thinking_that_the_prompt_opens_shows_in_the_text(tokenizer):
    lm, _ = lm_of(tokenizer, "hm</think>4")
    assert lm.generate_until([instance("<s><|assistant|><think>\n"), instance()]) == [
        "<think>\nhm</think>4",
        "hm</think>4",
    ]


def test_progress_is_told_the_tokens(tokenizer, capfd):
    told: list[int] = []
    lm, _ = lm_of(tokenizer, "four", progress=told.append)
    lm.generate_until([instance(), instance(doc_id=4)])
    assert sum(told) == 10
    assert capfd.readouterr() == ("", "")


def test_given_texts_cannot_be_scored(tokenizer):
    lm, _ = lm_of(tokenizer)
    for score in (lm.loglikelihood, lm.loglikelihood_rolling):
        with pytest.raises(UserError, match="only tasks that generate"):
            score([])

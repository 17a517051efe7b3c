"""tests.scripted: the fake keeps the promises of a RolloutEngine."""

import pytest

from harness.rollout import RolloutRequest, Sampling
from tests.scripted import ScriptedEngine

END = 9


def request(prompt_id: str = "a", prefix: tuple[int, ...] = (), sample_index: int = 0) -> RolloutRequest:
    return RolloutRequest(prompt_id, prompt_ids=(1, 2), seed=0, sample_index=sample_index, prefix_ids=prefix)


def test_completions_by_prompt_id_get_their_end_token_and_keep_the_order():
    engine = ScriptedEngine({"a": [3, 4], "b": [5]}, policy_version=7)
    second, first = engine.generate([request("b"), request("a", sample_index=2)], Sampling(10, stop_ids=(END,)))
    assert (second.completion_ids, first.completion_ids) == ((5, END), (3, 4, END))
    assert (first.prompt_id, first.prompt_ids, first.sample_index, first.policy_version) == ("a", (1, 2), 2, 7)
    assert first.stop_reason == "stop" and first.logprobs == (0.0, 0.0, 0.0)
    assert [r.prompt_id for r in engine.requests] == ["b", "a"]


def test_a_stop_id_inside_a_script_ends_it():
    (rollout,) = ScriptedEngine({"a": [3, 8, 4]}).generate([request()], Sampling(10, stop_ids=(END, 8)))
    assert rollout.completion_ids == (3, 8) and rollout.stop_reason == "stop"


@pytest.mark.parametrize(
    ("limit", "ids", "reason"), [(1, (3,), "length"), (2, (3, 4), "length"), (3, (3, 4, END), "stop")]
)
def test_the_limit_counts_what_the_model_writes(limit, ids, reason):
    engine = ScriptedEngine({"a": [3, 4]})
    (plain,) = engine.generate([request()], Sampling(limit, stop_ids=(END,)))
    (spliced,) = engine.generate([request(prefix=(6, 7))], Sampling(limit, stop_ids=(END,)))
    assert (plain.completion_ids, plain.stop_reason, plain.prefix_len) == (ids, reason, 0)
    assert (spliced.completion_ids, spliced.stop_reason, spliced.prefix_len) == ((6, 7, *ids), reason, 2)


def test_a_function_of_the_request_with_log_probs_and_progress():
    written: list[int] = []
    engine = ScriptedEngine(lambda r: [r.sample_index], logprobs=lambda r, ids: [-float(i) for i in ids])
    requests = [request(sample_index=k, prefix=(5,)) for k in (2, 3)]
    rollouts = engine.generate(requests, Sampling(4, stop_ids=(END,)), written.append)
    assert [r.logprobs for r in rollouts] == [(-5.0, -2.0, -9.0), (-5.0, -3.0, -9.0)]
    assert written == [2, 2]  # the prefix is not written


def test_texts_are_encoded_without_special_tokens(tokenizer):
    (rollout,) = ScriptedEngine({"a": "hi"}, tokenizer).generate([request()], Sampling(10, stop_ids=(1,)))
    assert tokenizer.decode(rollout.completion_ids) == "hi<|end|>"
    with pytest.raises(ValueError, match="tokenizer"):
        ScriptedEngine({"a": "hi"}).generate([request()], Sampling(10))
    with pytest.raises(ValueError, match="log-probs"):
        ScriptedEngine({"a": [3]}, logprobs=lambda r, ids: []).generate([request()], Sampling(10))

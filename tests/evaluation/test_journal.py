"""harness.evaluation.journal: nothing is generated twice, and nothing wrong is taken from it."""

import json

import pytest
from lm_eval.api.instance import Instance

from harness.errors import UserError
from harness.evaluation.journal import JOURNAL, SampleJournal, read_journal
from harness.evaluation.lm import EngineLM
from harness.evaluation.model import Drawing
from harness.rollout import RolloutRequest, Sampling
from tests.evaluation.scoring import model_of
from tests.scripted import ScriptedEngine

REQUEST = RolloutRequest("p", prompt_ids=(1, 2), seed=5)
SAMPLING = Sampling(4, stop_ids=(9,))


def stored(path, request=REQUEST, sampling=SAMPLING, model="m"):
    with SampleJournal(path, model) as journal:
        return journal.find(request, sampling)


def write(path, completion=(3, 4)):
    with SampleJournal(path, "m") as journal:
        (rollout,) = ScriptedEngine({"p": completion}).generate([REQUEST], SAMPLING)
        journal.add(REQUEST, SAMPLING, rollout)
        return rollout, journal.find(REQUEST, SAMPLING)


def test_what_was_added_is_found_at_once_and_by_the_next_process(tmp_path):
    rollout, at_once = write(tmp_path / "j.jsonl")
    later = stored(tmp_path / "j.jsonl")
    assert at_once == later
    assert (later.completion_ids, later.stop_reason) == (rollout.completion_ids, "stop") == ((3, 4, 9), "stop")


@pytest.mark.parametrize(
    "other",
    [
        {"model": "m2"},
        {"request": RolloutRequest("p", (1, 3), seed=5)},
        {"request": RolloutRequest("p", (1, 2), seed=6)},
        {"request": RolloutRequest("p", (1, 2), seed=5, sample_index=1)},
        {"sampling": Sampling(5, stop_ids=(9,))},
        {"sampling": Sampling(4, stop_ids=(9,), temperature=0.6)},
        {"sampling": Sampling(4, stop_ids=(9, 8))},
    ],
)
def test_another_model_prompt_seed_repeat_or_parameter_is_another_sample(tmp_path, other):
    write(tmp_path / "j.jsonl")
    assert stored(tmp_path / "j.jsonl", **other) is None


def test_a_line_that_was_cut_off_is_dropped_and_its_place_written_anew(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert stored(path) is None and path.read_bytes() == b""
    path.write_bytes(whole + whole[:20])
    assert stored(path) is not None and path.read_bytes() == whole


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "a", "ids": "xyz", "stop_reason": "stop"}', '{"key": "a"}'])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "j.jsonl"
    write(path)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"j\.jsonl, line 2: not a sample \(.*\); delete that line"):
        SampleJournal(path, "m")


def test_an_interrupted_evaluation_generates_the_rest_only(tmp_path, tokenizer):
    """The engine dies after three of six samples; the next one is asked for the other three, and every text is the
    same.
    """
    prompts = [f"<|user|>{text}<|end|><|assistant|>" for text in ("aa", "bbbb")]
    kwargs = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 50, "until": []}
    instances = [
        Instance("generate_until", {"id": d}, (prompt, kwargs), 0, ("toy", d, 3)) for d, prompt in enumerate(prompts)
    ]
    requests = [instance for instance in instances for _ in range(3)]

    def run(script):
        engine = ScriptedEngine(script, tokenizer)
        with SampleJournal(tmp_path / "j.jsonl", "m") as journal:
            lm = EngineLM(model_of(engine, tokenizer, 60), Drawing(run_seed=0, journal=journal))
            return engine, lm, lm.generate_until(requests)

    def text(request):
        return f"{request.prompt_id} {request.sample_index}" + "." * 60  # longer than the limit of either prompt

    asked = []

    def dies(request):
        asked.append(request)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return text(request)

    with pytest.raises(KeyboardInterrupt):
        run(dies)
    engine, resumed, texts = run(text)
    assert [(r.prompt_id, r.sample_index) for r in engine.requests] == [("toy/1", 0), ("toy/1", 1), ("toy/1", 2)]
    (tmp_path / "j.jsonl").rename(tmp_path / "resumed.jsonl")
    _, whole, expected = run(text)
    assert texts == expected and resumed.samples == whole.samples
    assert read_journal(tmp_path / "j.jsonl").keys() == read_journal(tmp_path / "resumed.jsonl").keys()
    assert len((tmp_path / "resumed.jsonl").read_text().splitlines()) == 6


def test_the_file_holds_ids_and_no_text(tmp_path):
    write(tmp_path / "j.jsonl")
    assert set(json.loads((tmp_path / "j.jsonl").read_text())) == {"key", "ids", "stop_reason"}


def test_a_journal_of_an_earlier_day_is_still_read(tmp_path):
    """The file's name and the key, frozen: with another key, everything that has been generated would be generated
    again.
    """
    assert JOURNAL == "generations.jsonl"
    write(tmp_path / "j.jsonl")
    (key,) = read_journal(tmp_path / "j.jsonl")
    assert key == "cfefe21f474fac6c3bc9413c6a917d67669f5b7b8f7e7d95e46f9d0537993927"


def test_the_key_takes_prompt_and_prefix_together(tmp_path):
    write(tmp_path / "j.jsonl")
    assert stored(tmp_path / "j.jsonl", request=RolloutRequest("q", (1,), seed=5, prefix_ids=(2,))) is not None


def test_what_is_taken_from_the_file_has_no_logprobs(tmp_path):
    path = tmp_path / "new" / "folders" / "j.jsonl"
    with SampleJournal(path, "m") as journal:
        assert journal.find(REQUEST, SAMPLING) is None
    write(path)
    with SampleJournal(path, "m") as journal:
        found = [journal.find(REQUEST, SAMPLING) for _ in range(3)]
    assert {(rollout.logprobs, rollout.policy_version) for rollout in found} == {((), 0)}


def test_a_sample_is_on_disk_before_the_next_one_and_the_file_is_closed_in_the_end(tmp_path):
    (rollout,) = ScriptedEngine({"p": (3, 4)}).generate([REQUEST], SAMPLING)
    with SampleJournal(tmp_path / "j.jsonl", "m") as journal:
        for count in (1, 2):
            journal.add(REQUEST, SAMPLING, rollout)
            assert (tmp_path / "j.jsonl").read_bytes().count(b"\n") == count
    with pytest.raises(ValueError, match="closed file"):
        journal.add(REQUEST, SAMPLING, rollout)

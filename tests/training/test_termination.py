"""A student and a teacher that end with different tokens: refused, or all of their end tokens as one event
(setting.termination).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig

from baselines.eopd import EOPD
from baselines.opd import OPD
from baselines.tropd import TrOPD
from harness.config.settings import RunConfig, Setting
from harness.errors import UserError
from harness.files import ROOT
from harness.models import pair
from harness.models.loading import load_model, load_tokenizer, stored_stop_ids
from harness.models.pair import Ends, check_pair, ends_line
from harness.rollout import Sampling
from harness.tiny.language import EOS, UNK, WORD_IDS
from harness.training import job
from harness.training.checks import check_execution
from harness.training.guidance import TeacherResponses, as_rollout
from harness.training.prompts import Prompt
from harness.training.trainer import DistillationTrainer
from harness.types import Method
from tests.conftest import random_model
from tests.training.test_step import ForwardKL, Imitation, assert_same_weights, config_for, run

EXTRA = WORD_IDS["."]  # a second end token of the teacher's, in its generation configuration alone
ENDS = (EOS, UNK, EXTRA)


def set_ends(folder: Path, tokenizer_end: str | None, *ids: int) -> None:
    """Gives a stored model other end tokens."""
    GenerationConfig(eos_token_id=list(ids)).save_pretrained(folder)
    if tokenizer_end is not None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.eos_token = tokenizer_end
        tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random pair, whose teacher ends with <unk> or `.` and not with <eos>."""
    from harness.tiny.language import build_tokenizer

    root = tmp_path_factory.mktemp("unlike")
    for name, seed, hidden in (("student", 1, 64), ("teacher", 2, 96)):
        random_model(seed, hidden).save_pretrained(root / name)
        build_tokenizer().save_pretrained(root / name)
    set_ends(root / "teacher", "<unk>", UNK, EXTRA)
    return root


def mapped(pair_folder: Path, tmp_path: Path, method: Method | None = None, **changes: Any) -> RunConfig:
    return config_for(pair_folder, tmp_path, method or OPD(), termination="map", **changes)


def captured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """(rollouts, step) of every step to come."""
    found: list[Any] = []
    original = DistillationTrainer.assign_credit

    def spy(self: DistillationTrainer, written: Any, *rest: Any) -> Any:
        found.append((written.rollouts, original(self, written, *rest)))
        return found[-1][1]

    monkeypatch.setattr(DistillationTrainer, "assign_credit", spy)
    return found


def test_unlike_end_tokens_are_refused_in_a_sentence(unlike: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        check_pair(config_for(unlike, tmp_path, OPD()))
    assert str(caught.value) == (
        f"the end tokens differ: 1 '<eos>' (tokenizer) for the student and 3 '<unk>' (tokenizer), {EXTRA} '.' for the "
        "teacher; give setting.termination=map, under which all of them are one event, or another pair."
    )
    assert check_pair(mapped(unlike, tmp_path)) == 64


def test_a_generation_configuration_alone_is_enough(random_pair: Path, unlike: Path, tmp_path: Path) -> None:
    """The tokenizers are the same; one model stops at one token more."""
    for name in ("student", "teacher"):
        (tmp_path / name).symlink_to(random_pair / name)
    assert check_pair(config_for(tmp_path, tmp_path, OPD())) == 64
    (tmp_path / "teacher").unlink()
    load_model(str(random_pair / "teacher")).save_pretrained(tmp_path / "teacher")
    load_tokenizer(str(random_pair / "teacher")).save_pretrained(tmp_path / "teacher")
    set_ends(tmp_path / "teacher", None, EOS, EXTRA)
    with pytest.raises(
        UserError, match=f"1 '<eos>' .tokenizer., {EXTRA} '.' for the teacher; give setting.termination"
    ):
        check_pair(config_for(tmp_path, tmp_path, OPD()))


def test_an_end_token_beyond_the_vocabulary_is_refused(unlike: Path, tmp_path: Path) -> None:
    for name in ("student", "teacher"):
        load_model(str(unlike / name)).save_pretrained(tmp_path / name)
        load_tokenizer(str(unlike / name)).save_pretrained(tmp_path / name)
    set_ends(tmp_path / "teacher", None, UNK, 64)
    with pytest.raises(UserError, match="the end token 64 is beyond the 64 tokens"):
        check_pair(mapped(tmp_path, tmp_path))


def test_only_transformers_can_take_them_as_one(unlike: Path, tmp_path: Path) -> None:
    config = mapped(unlike, tmp_path)
    check_execution([config])
    with pytest.raises(UserError, match=r"setting\.termination='both': must be one of refuse, map"):
        dataclasses.replace(config.setting, termination="both")
    engine = dataclasses.replace(config.engine, name="server")
    with pytest.raises(UserError, match=r"engine\.name=server can neither draw nor score"):
        check_execution([dataclasses.replace(config, engine=engine)])


def test_an_old_record_refused(unlike: Path, tmp_path: Path) -> None:
    setting = mapped(unlike, tmp_path).setting
    content = setting.by_value()
    assert Setting.of_record(content) == setting
    del content["termination"]
    assert Setting.of_record(content).termination == "refuse"


def test_what_both_end_with_is_said(unlike: Path, tmp_path: Path) -> None:
    said = ends_line(mapped(unlike, tmp_path).setting)
    assert said.startswith("End tokens: 1 '<eos>' (tokenizer) for the student and 3 '<unk>' (tokenizer), ")
    assert said.endswith("setting.termination=map: they are one event in training")


def by_hand(unlike: Path, rollouts: Any) -> tuple[float, dict[str, list[float]]]:
    """OPD's loss of the first step from plain float64 forwards, an end token scored as the union; and the stop masses
    by place.
    """
    models = {name: load_model(str(unlike / name)).double() for name in ("student", "teacher")}
    total, count = 0.0, 0
    masses: dict[str, list[float]] = {}
    for rollout in rollouts:
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
        labels, start = list(rollout.completion_ids), len(rollout.prompt_ids) - 1
        picked = {}
        for name, model in models.items():
            with torch.no_grad():
                probabilities = model(ids).logits[0, start:-1].softmax(-1)
            union = probabilities[:, ENDS].sum(-1)
            picked[name] = probabilities[range(len(labels)), labels].log()
            for t, mass in enumerate(union.tolist()):
                ended = rollout.stop_reason == "stop" and t == len(labels) - 1
                masses.setdefault(f"stop/{name}_{'at_end' if ended else 'elsewhere'}", []).append(mass)
                if ended:
                    assert labels[t] == EOS
                    picked[name][t] = union[t].log()
        total += -((picked["teacher"] - picked["student"]) * picked["student"]).sum().item()
        count += len(labels)
    return total / count, masses


def test_the_end_is_scored_as_the_union_on_both_sides(unlike: Path, tmp_path: Path, monkeypatch) -> None:
    steps = captured(monkeypatch)
    _, rows = run(mapped(unlike, tmp_path, max_new_tokens=40), tmp_path / "run")
    rollouts = steps[0][0]
    assert sum(r.stop_reason == "stop" for r in rollouts) >= 2  # else there is nothing to see
    assert not {UNK, EXTRA} & {i for r in rollouts for i in r.completion_ids}
    loss, masses = by_hand(unlike, rollouts)
    assert rows[0]["loss"] == pytest.approx(loss, rel=1e-5)
    assert {key for key in rows[0] if key.startswith("stop/")} == set(masses)
    for key, values in masses.items():
        assert rows[0][key] == pytest.approx(sum(values) / len(values), rel=1e-4), key


def test_the_checkpoint_stops_at_every_one(unlike: Path, tmp_path: Path, monkeypatch) -> None:
    """And so do the untrained rows, whose stored configuration knows their own end tokens only."""
    config = mapped(unlike, tmp_path, steps=1)
    run(config, tmp_path / "run")
    tokenizer = load_tokenizer(config.setting.student)
    assert set(stored_stop_ids(str(tmp_path / "run" / "checkpoint"), None, tokenizer)) == set(ENDS)
    opened = []

    def evaluated(record: Any, evaluation: Any, tasks: Any, checkpoint: Any) -> Any:
        with checkpoint.open_model() as model:
            opened.append(model.stop_ids)
        return record

    monkeypatch.setattr(job, "evaluate_missing", evaluated)
    for name in ("student", "teacher"):
        job.run_job(dataclasses.replace(config, method_name=name, method=None))
    assert opened == [ENDS, ENDS]


@pytest.mark.parametrize("method", [EOPD(entropy_threshold=2.5), TrOPD(), ForwardKL(), Imitation()])
def test_support_guidance_and_texts_of_others(unlike: Path, tmp_path: Path, method: Method, monkeypatch) -> None:
    """Direct terms, prefixes and teacher texts: every loss finite, and no end token but the one that stands for all."""
    steps = captured(monkeypatch)
    _, rows = run(mapped(unlike, tmp_path, method, samples_per_prompt=2), tmp_path / "run")
    assert all(abs(row["loss"]) < 1e3 for row in rows)
    assert not {UNK, EXTRA} & {i for rollouts, _ in steps for r in rollouts for i in r.completion_ids}


def test_texts_of_others_end_with_the_one_that_stands_for_all() -> None:
    prompt = Prompt("a", (2, 5))
    texts = TeacherResponses({"a": (7, UNK)}, ENDS)
    written = as_rollout(prompt, "teacher", texts, Sampling(8, stop_ids=ENDS, one_end=True))
    assert (written.completion_ids, written.stop_reason) == ((7, EOS), "stop")
    plain = as_rollout(prompt, "teacher", texts, Sampling(8, stop_ids=ENDS))
    assert (plain.completion_ids, plain.stop_reason) == ((7, UNK), "stop")


def test_where_both_end_alike_mapping_changes_no_bit(random_pair: Path, tmp_path: Path) -> None:
    """One end token in common: the union is itself."""
    results = []
    for termination in ("refuse", "map"):
        config = config_for(random_pair, tmp_path, EOPD(entropy_threshold=2.5), termination=termination)
        results.append(run(config, tmp_path / termination))
    (weights, rows), (other, other_rows) = results
    assert_same_weights(weights, other)
    keys = [key for key in rows[0] if not key.startswith(("time/", "memory/"))]
    assert [[row[key] for key in keys] for row in rows] == [[row[key] for key in keys] for row in other_rows]


@pytest.fixture
def relabelled(tmp_path: Path) -> Path:
    """The shipped tiny pair, whose teacher says <unk> where it said <eos>: two rows of its head have changed places."""
    shipped = ROOT / "harness" / "tiny" / "checkpoints"
    models = {name: load_model(str(shipped / name)) for name in ("student", "teacher")}
    with torch.no_grad():
        rows = models["teacher"].get_output_embeddings().weight
        rows[[EOS, UNK]] = rows[[UNK, EOS]]
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        load_tokenizer(str(shipped / name)).save_pretrained(tmp_path / name)
    set_ends(tmp_path / "teacher", "<unk>", UNK)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("method", [EOPD(entropy_threshold=0.0), OPD()])
def test_what_a_terminator_mismatch_does(relabelled: Path, method: Method, monkeypatch) -> None:
    """40 steps with the mismatch left as it is, and with both end tokens as one event, which makes the teacher what it
    was.

    With a direct term at every token (EOPD's, threshold 0) the student learns the teacher's end token, at which nobody
    stops. OPD's gradient on an end that the student is sure of is 0 (r·∇log π vanishes at π = 1): it keeps stopping, at
    a reward of some −20 nats.
    """
    monkeypatch.setattr(pair, "check_ends", lambda *_: None)  # `refuse` would not let it start
    changes = {"max_new_tokens": 60, "prompts_per_step": 16, "steps": 40, "learning_rate": 6e-4, "warmup_steps": 5}
    prompts = str(ROOT / "harness" / "tiny" / "prompts.jsonl")
    first: dict[str, dict[str, float]] = {}
    last: dict[str, dict[str, float]] = {}
    for termination in ("refuse", "map"):
        config = config_for(relabelled, relabelled, method, termination=termination, prompts=prompts, **changes)
        config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, micro_batch_prompts=16))
        _, rows = run(config, relabelled / termination)
        first[termination] = rows[0]
        last[termination] = {
            key: sum(row[key] for row in rows[-5:]) / 5 for key in ("truncated_frac", "length/completion")
        }
        print(type(method).__name__, "left" if termination == "refuse" else "mapped", last[termination])
    left, together = last["refuse"], last["map"]
    assert first["refuse"]["stop/teacher_at_end"] < 1e-3 and first["map"]["stop/teacher_at_end"] > 0.99
    assert first["refuse"]["kl/reverse_k1"] > first["map"]["kl/reverse_k1"] + 0.3
    assert together["truncated_frac"] < 0.05
    if isinstance(method, EOPD):
        assert left["truncated_frac"] > 0.4 and left["length/completion"] > 1.3 * together["length/completion"]
    else:
        assert left["truncated_frac"] < 0.05


def test_many_end_tokens_are_counted() -> None:
    names = {i: f"t{i}" for i in range(9)}
    student, teacher = str(Ends(tuple(range(9)), (0, 1), (None, 1), names)).split(" for the student and ")
    assert student == "0 't0', 1 't1', 2 't2', 3 't3', 4 't4' and 4 more"
    assert teacher == "0 't0', 1 't1' (tokenizer) for the teacher"

"""harness.evaluation.loading: the protocol hash changes with what a score depends on, and with nothing else."""

import json
import shutil

import pytest

from harness.errors import UserError
from harness.evaluation.loading import TASKS_DIR
from harness.files import ROOT
from harness.models.loading import load_tokenizer
from tests.evaluation.scoring import protocol_hashes, scored
from tests.scripted import ScriptedEngine

from .conftest import AIME_LAYOUT, TEMPLATE, make_tokenizer


def hash_of(tokenizer, **kwargs) -> str:
    settings = {"samples": 2, "data_dir": str(AIME_LAYOUT), **kwargs}
    return protocol_hashes(["aime24"], tokenizer, **settings)["aime24"]


@pytest.fixture
def own_tasks(tmp_path):
    """A copy of the task files that may be edited."""
    folder = tmp_path / "somewhere else" / "tasks"
    shutil.copytree(TASKS_DIR, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def edit(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_it_is_a_sha256_and_the_same_with_and_without_a_model(tokenizer):
    digest = hash_of(tokenizer)
    assert len(digest) == 64 and int(digest, 16)
    for seed in (0, 1):
        engine = ScriptedEngine(lambda r: "", tokenizer)
        (result,) = scored(
            engine, tokenizer, ["aime24"], run_seed=seed, max_length=2048, samples=2, data_dir=str(AIME_LAYOUT)
        )
        assert result.evaluation.protocol_hash == digest == result.items[0].protocol_hash


def test_where_the_data_and_the_task_files_lie_does_not_matter(tokenizer, tmp_path, own_tasks, monkeypatch):
    shutil.copytree(AIME_LAYOUT / "aime24", tmp_path / "moved" / "aime24")
    assert hash_of(tokenizer, data_dir=str(tmp_path / "moved")) == hash_of(tokenizer)
    assert hash_of(tokenizer, tasks_dir=own_tasks) == hash_of(tokenizer)
    monkeypatch.setenv("BENCHMARK_DATA", str(AIME_LAYOUT))
    assert hash_of(tokenizer, data_dir=None) == hash_of(tokenizer)


def test_columns_that_no_prompt_and_no_grader_reads_do_not_matter(tokenizer, tmp_path):
    rows = [json.loads(line) for line in (AIME_LAYOUT / "aime24" / "test.jsonl").read_text().splitlines()]
    (tmp_path / "aime24").mkdir()
    lines = [json.dumps({"id": r["id"], "problem": r["problem"], "answer": r["answer"], "year": "2024"}) for r in rows]
    (tmp_path / "aime24" / "test.jsonl").write_text("\n".join(lines))
    assert hash_of(tokenizer, data_dir=str(tmp_path)) == hash_of(tokenizer)


def test_samples_limit_data_and_chat_template_matter(tokenizer, tmp_path):
    shutil.copytree(AIME_LAYOUT / "aime24", tmp_path / "aime24")
    edit(tmp_path / "aime24" / "test.jsonl", "$30$", "$42$")
    others = [
        hash_of(tokenizer, samples=3),
        hash_of(tokenizer, samples=None),
        hash_of(tokenizer, limit=3),
        hash_of(tokenizer, generation={"max_gen_toks": 100}),
        hash_of(tokenizer, data_dir=str(tmp_path)),
        hash_of(make_tokenizer(TEMPLATE.replace("<|end|>", ""))),
        hash_of(make_tokenizer(None)),
    ]
    assert len({hash_of(tokenizer), *others}) == 1 + len(others)
    assert hash_of(tokenizer, samples=None) == hash_of(tokenizer, samples=32)  # the number that the task file says


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Please reason step by step", "Think"),
        ("temperature: 0.6", "temperature: 0.7"),
        ("max_gen_toks: 32768", "max_gen_toks: 38912"),
        ("version: 3.0", "version: 4.0"),
    ],
)
def test_prompt_sampling_and_version_matter(tokenizer, own_tasks, old, new):
    edit(own_tasks / "aime24" / "aime24.yaml", old, new)
    assert hash_of(tokenizer, tasks_dir=own_tasks) != hash_of(tokenizer)


def test_the_hash_of_a_protocol_is_pinned(tokenizer):
    """Rows of different versions are compared where it is equal: it may change only when a protocol does."""
    assert hash_of(tokenizer)[:12] == "65b619bb3b4b"


def test_the_grader_is_part_of_the_protocol_where_there_are_two(tokenizer):
    assert hash_of(tokenizer, grader="strict") == hash_of(tokenizer) != hash_of(tokenizer, grader="official")
    with pytest.raises(UserError, match=r"evaluation\.grader='kind': must be one of strict, official"):
        hash_of(tokenizer, grader="kind")


@pytest.mark.parametrize("grader", ["strict", "official"])
def test_the_protocol_of_published_tables_stays(grader):
    """Generated arithmetic has one grader, and its protocol under its own decoding is the published one."""
    tokenizer = load_tokenizer("harness/tiny/checkpoints/student", None)
    first = json.loads((ROOT / "results" / "tiny_cpu_earlier" / "runs.jsonl").read_text().splitlines()[0])
    published = {entry["task"]: entry["protocol_hash"] for entry in first["evaluations"]}
    assert protocol_hashes(["arithmetic"], tokenizer, grader=grader) == published


def test_an_official_evaluation_counts_the_official_verdicts(tokenizer):
    """A thought that never ends: nothing for us, and math-verify reads the box in it."""
    scores = {}
    for grader in ("strict", "official"):
        engine = ScriptedEngine(lambda r: r"<think>\boxed{25}", tokenizer)
        (result,) = scored(
            engine,
            tokenizer,
            ["aime24"],
            run_seed=0,
            max_length=2048,
            samples=1,
            data_dir=str(AIME_LAYOUT),
            grader=grader,
        )
        scores[grader] = result.evaluation.score
        metrics = result.evaluation.metrics
        assert metrics["official_grader"] == float(grader == "official")
        assert metrics["graders_differ"] == metrics["official_score"] - metrics["strict_score"] > 0
    assert scores["strict"] == metrics["strict_score"] == 0 < scores["official"] == metrics["official_score"]

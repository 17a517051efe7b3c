"""Training prompts from rows of OpenThoughts3's form: what is left out and why, and what overlaps with a benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.config.identity import prompts_identity
from harness.files import ROOT
from harness.models.loading import load_tokenizer
from harness.planning.overlap import OverlapIndex, grams_of, words_of
from harness.planning.prompts import benchmark_names
from harness.prepare import main
from harness.training.prompts import load_prompts

TOKENIZER = ROOT / "harness" / "tiny" / "checkpoints" / "student"
DATA = Path(__file__).parent / "data"  # has aime24
PROBLEM = json.loads((DATA / "aime24" / "test.jsonl").read_text().splitlines()[0])["problem"]
QUESTIONS = [f"Start with {k} , add 2 . What is the result mod 1 0 ?" for k in range(6)]


def row(text: str, domain: str = "math", speaker: str = "human") -> dict:
    turns = [{"from": speaker, "value": text}, {"from": "gpt", "value": "a long answer"}]
    return {"difficulty": 5, "source": "somewhere", "domain": domain, "conversations": turns}


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """Six questions twice, one of another domain, one too long, and a problem of AIME 2024 with a remark."""
    rows = [row(text) for text in QUESTIONS] + [row(text.upper() + " ") for text in QUESTIONS]
    rows += [row("Write a program .", "code"), row("add " * 100), row(f"Solve this. {PROBLEM.upper()}  Thanks!")]
    path = tmp_path / "sample.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    return path


def run(sample: Path, *arguments: str) -> int:
    common = [f"source={sample}", f"tokenizer={TOKENIZER}", f"output={sample.parent / 'prompts.jsonl'}"]
    return main([*common, "max_tokens=64", "benchmarks=aime24", f"data_dir={DATA}", *arguments])


def written(sample: Path) -> list[dict]:
    return [json.loads(line) for line in (sample.parent / "prompts.jsonl").read_text().splitlines()]


def test_what_is_left_out(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sample, "max_tokens=90") == 0
    assert [prompt["prompt"] for prompt in written(sample)] == QUESTIONS
    text = capsys.readouterr().out
    assert "15 rows: 1 of other domains, 6 repeated, 1 longer than 90 tokens, 1 overlapping" in text
    assert prompts_identity(str(sample.parent / "prompts.jsonl"), "train") in text  # what the Setting's hash will know
    assert {(prompt["domain"], prompt["source"]) for prompt in written(sample)} == {("math", "somewhere")}


@pytest.mark.parametrize(("fate", "count"), [("remove", 6), ("keep", 7)])
def test_overlap_is_reported_and_removable(sample: Path, fate: str, count: int, capsys) -> None:
    assert run(sample, "max_tokens=99999", f"overlap={fate}", "domains=math,code") == 0
    prompts = [prompt["prompt"] for prompt in written(sample) if not prompt["prompt"].startswith(("add", "Write"))]
    assert len(prompts) == count
    assert "aime24: 1 prompts hold 1 of 4 problems" in capsys.readouterr().out
    report = json.loads((sample.parent / "prompts.jsonl.report.json").read_text())
    assert report["overlap"]["aime24"] == {"problems": 4, "too_short": 0, "prompts": 1, "problems_found": 1}
    assert report["by_domain"] == {"math": count + 1, "code": 1}
    assert report["overlapping"] == 1


def test_a_draw_is_the_seeds(sample: Path) -> None:
    drawn = []
    for seed in (0, 0, 1):
        assert run(sample, "limit=3", f"seed={seed}") == 0
        drawn.append([prompt["prompt"] for prompt in written(sample)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(prompts) for prompts in drawn] == [3, 3, 3]
    assert drawn[0] == sorted(drawn[0])  # in the order of the source


def test_a_setting_takes_the_file(sample: Path) -> None:
    assert run(sample) == 0
    output = str(sample.parent / "prompts.jsonl")
    prompts = load_prompts(output, load_tokenizer(str(TOKENIZER)), split="train", max_tokens=64, template_kwargs={})
    assert [prompt.prompt_id for prompt in prompts] == [entry["id"] for entry in written(sample)]


def test_a_parquet_file_gives_the_same(sample: Path) -> None:
    import datasets

    assert run(sample) == 0
    expected = written(sample)
    datasets.Dataset.from_list([json.loads(line) for line in sample.read_text().splitlines()]).to_parquet(
        sample.with_suffix(".parquet")
    )
    assert run(sample.with_suffix(".parquet")) == 0
    assert written(sample) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["source=open-thoughts/OpenThoughts3-1.2M"], "give revision="),
        (["source=nowhere.jsonl"], "there is no file"),
        (["domains=maths"], "'maths' is none of math, code, science"),
        (["limit=0"], "limit=0: must be positive"),
        (["max_tokens=many"], "expected a whole number"),
        (["overlap=no"], "must be remove or keep"),
        (["output=prompts.txt"], "must be a .jsonl file"),
        (["colour=red"], "unknown option 'colour'"),
        (["benchmarks=aime99"], "Unknown task 'aime99'"),
        (["benchmarks=amc23"], "benchmarks=… names those"),
        (["max_tokens=1"], "no prompt is left of 15 rows"),
    ],
)
def test_bad_input(sample: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sample, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (sample.parent / "prompts.jsonl").exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"domain": "math", "conversations": []}, "line 16: needs a list 'conversations'"),
        ({"domain": "math", "conversations": [{"from": "gpt", "value": "x"}]}, "line 16: its first message"),
        ({"conversations": []}, "line 16: the column 'domain' is missing"),
    ],
)
def test_a_bad_row_is_named(sample: Path, bad: dict, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with sample.open("a") as stream:
        stream.write(json.dumps(bad) + "\n")
    assert run(sample) == 2
    assert message in capsys.readouterr().err


def test_grams_by_hand() -> None:
    assert words_of("Let $x_1=2$; café!") == ["let", "x", "1", "2", "café"]
    assert list(grams_of(["a", "b", "c"], 2)) == [("a", "b"), ("b", "c")]
    assert list(grams_of(["a"], 2)) == []


def test_thirteen_words_decide() -> None:
    words = [f"w{k}" for k in range(20)]
    index = OverlapIndex(13)
    index.add("long", [" ".join(words)])
    index.add("short", ["one two three four five six seven eight", "one two three"])
    texts = {
        "thirteen": "so: " + ", ".join(words[3:16]),
        "twelve": " ".join(words[3:15]),
        "eight": "zero one two three four five six seven eight nine",
    }
    found = index.overlaps({name: index.find(text) for name, text in texts.items()})
    assert found == {
        "thirteen": {("long", " ".join(words))},
        "eight": {("short", "one two three four five six seven eight")},
    }
    assert (index.problems, index.too_short) == ({"long": 1, "short": 1}, {"short": 1})


@pytest.mark.parametrize(("prompts", "expected"), [(10, 10), (11, 0)])
def test_a_phrase_in_more_than_ten_prompts_is_common(prompts: int, expected: int) -> None:
    index = OverlapIndex(8)
    index.add("aime24", ["a b c d e f g h"])
    assert len(index.overlaps({str(k): index.find("a b c d e f g h") for k in range(prompts)})) == expected


def test_every_benchmark_is_looked_for() -> None:
    assert set(benchmark_names()) >= {
        "aime24",
        "aime25",
        "amc23",
        "gpqa_diamond",
        "ifbench",
        "livecodebench_v6",
        "math500",
    }
    assert "arithmetic" not in benchmark_names()


@pytest.mark.parametrize("column", ["question", "problem"])
def test_rows_of_questions_alone(tmp_path: Path, column: str) -> None:
    """GSM8K and MATH have a column instead of conversations, and no domain; the instruction follows every question."""
    path = tmp_path / "sample.jsonl"
    rows = [{column: text, "answer": "#### 1"} for text in [*QUESTIONS, QUESTIONS[0]]]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    assert run(path, "instruction=What is the result ?") == 0
    assert [prompt["prompt"] for prompt in written(path)] == [f"{text}\nWhat is the result ?" for text in QUESTIONS]
    assert {prompt["domain"] for prompt in written(path)} == {"math"}
    assert run(path, "domains=math,code") == 2  # which of the two is not known

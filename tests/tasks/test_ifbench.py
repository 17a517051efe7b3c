"""tasks.ifbench: rows of our own for all 58 constraints, and the official verdicts where they are at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from tasks.ifbench import data, grader, resources
from tasks.ifbench.checkers import checkers
from tasks.ifbench.results import process_results, share

TEST_DATA = Path(__file__).parents[1] / "data"
OWN_ROWS = TEST_DATA / "ifbench_rows.jsonl"
PARITY, DATA = os.environ.get("PARITY_DATA"), os.environ.get("BENCHMARK_DATA")
OFFICIAL = ("ifbench_parity.jsonl", "ifbench_parity_sample_output.jsonl")


@pytest.fixture(scope="module", autouse=True)
def _nltk_data():
    """The real data where a folder is given; otherwise the small data of our own, on which our own
    rows mean the same.
    """
    resources.require_nltk_data(DATA or str(TEST_DATA))


needs_parity = pytest.mark.skipif(
    PARITY is None or DATA is None,
    reason="PARITY_DATA (official verdicts) and BENCHMARK_DATA (ifbench/, nltk_data/) do not name folders",
)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def verdicts(row: dict) -> tuple[list[bool], list[bool]]:
    graded = grader.grade(row["prompt"], row["response"], row["instruction_id_list"], row["kwargs"])
    return list(graded.strict), list(graded.loose)


@pytest.mark.parametrize("row", read(OWN_ROWS), ids=lambda row: f"{row['key']}-{'+'.join(row['instruction_id_list'])}")
def test_our_own_rows(row):
    """At least one followed and one broken row for every constraint; the verdicts are ours, by the constraint's words.

    `format:sub-bullets` is never broken loosely: without asterisks there are no bullets left.
    """
    assert verdicts(row) == (row["strict"], row["loose"])


def test_our_own_rows_cover_every_constraint_both_ways():
    seen = {
        (name, strict)
        for row in read(OWN_ROWS)
        for name, strict in zip(row["instruction_id_list"], row["strict"], strict=True)
    }
    assert len(checkers()) == 58
    assert seen == {(name, strict) for name in checkers() for strict in (True, False)}


@needs_parity
@pytest.mark.parametrize("name", OFFICIAL)
def test_every_official_verdict_is_reproduced(name):
    rows = read(Path(str(PARITY)) / name)
    assert len(rows) in (266, 146)
    assert [(row["key"], *verdicts(row)) for row in rows] == [(row["key"], row["strict"], row["loose"]) for row in rows]


@needs_parity
def test_the_task_gives_the_official_totals_for_stored_responses():
    """The four accuracies through process_results and the aggregations, as lm-eval calls them."""
    rows = read(Path(str(PARITY)) / "ifbench_parity_sample_output.jsonl")
    documents = {doc["id"]: doc for doc in data.load(data_dir=DATA)["test"]}
    assert len(documents) == 294
    results = [process_results(documents[row["key"]], [[row["response"]]]) for row in rows]
    official = {mode: [all(row[mode]) for row in rows] for mode in ("strict", "loose")}
    assert (sum(official["strict"]), sum(official["loose"]), len(rows)) == (36, 40, 146)
    for mode in ("strict", "loose"):
        assert share([result[f"prompt_{mode}"] for result in results]) == sum(official[mode]) / len(rows)
        flat = [kept for row in rows for kept in row[mode]]
        assert share([result[f"instruction_{mode}"] for result in results]) == sum(flat) / len(flat)
    assert sum(result["avg_at_k"] for result in results) == 40


@pytest.mark.parametrize(
    ("name", "kwargs", "response", "official", "fixed"),
    [
        ("format:line_indent", {}, "a\n\n b\n  c", True, True),
        ("format:line_indent", {}, "a\n\n\n b\n  c", False, True),  # two blank lines, of which one survives
        ("format:line_indent", {}, "Sure!\na\n b", False, False),
        ("ratio:sentence_type", {}, "Is it so? It is. It was.", True, True),
        ("ratio:sentence_type", {}, "What a day! How nice!", True, False),  # 0 is twice 0
        ("ratio:sentence_type", {}, 'He asked: "Is it so?" It is. It was.', False, True),
        ("ratio:sentence_type", {}, "Is it so? It is.", False, False),
        ("words:words_position", {"keyword": "whisper"}, "A whisper is a whisper here!?", False, True),
        ("words:words_position", {"keyword": "whisper"}, "A whisper is a whisper!?", True, False),
        ("words:words_position", {"keyword": "whisper"}, "Well, whisper a whisper now.", False, True),
        ("words:words_position", {"keyword": "whisper"}, "A whisper is a whisper here.", True, True),
        ("words:vowel", {}, "An apple\nand a pear", False, True),  # broken over two lines
        ("words:vowel", {}, "An apple\n\nand a pear", False, False),
        ("words:vowel", {}, "An apple is of use", False, False),
    ],
)
def test_four_checkers_are_mended_in_a_variant_of_its_own(name, kwargs, response, official, fixed):
    for which, kept in (("official", official), ("fixed", fixed)):
        assert grader.grade("p", response, [name], [kwargs], which=which).strict == (kept,), which


def test_the_variant_differs_in_these_four_alone():
    official, fixed = grader.CHECKERS["official"](), grader.CHECKERS["fixed"]()
    assert official.keys() == fixed.keys()
    assert {name for name in official if official[name] is not fixed[name]} == {
        *("format:line_indent", "ratio:sentence_type", "words:words_position", "words:vowel")
    }


@pytest.mark.parametrize("which", ["official", "fixed"])
def test_loose_is_never_below_strict(which):
    for row in read(OWN_ROWS):
        for response in (row["response"], "", "*a*\nb", row["response"].upper()):
            verdict = grader.grade(row["prompt"], response, row["instruction_id_list"], row["kwargs"], which=which)
            assert all(loose >= strict for strict, loose in zip(verdict.strict, verdict.loose, strict=True))


def test_a_checker_that_remembers_does_not_take_a_verdict_back(monkeypatch):
    class Once:
        def __init__(self, name):
            self.asked = 0

        def build_description(self, **_): ...

        def get_instruction_args(self):
            return None

        def get_instruction_args_keys(self):
            return []

        def check_following(self, value):
            self.asked += 1
            return self.asked == 1

    monkeypatch.setitem(grader.CHECKERS, "once", lambda: {"a:b": Once})
    assert grader.grade("p", "text", ["a:b"], [{}], which="once") == grader.Verdicts((True,), (True,))


def test_metrics_of_one_prompt():
    constraints = [{"id": "format:no_whitespace", "kwargs": {}}, {"id": "count:numbers", "kwargs": {"N": 1.0}}]
    doc = {"prompt": "p", "constraints": json.dumps(constraints)}
    result = process_results(doc, [["rain-4", "rain 4", "<think>rain-4", "so\nrain-4"]])
    assert result["prompt_strict"] == [True, False, False, False]
    assert result["prompt_loose"] == [True, False, False, True]
    assert result["instruction_strict"] == [True, True, False, True, False, False, False, True]
    assert result["correct"] == [1, 0, 0, 1] and result["avg_at_k"] == 0.5
    assert result["extracted"] == ["rain-4", "rain 4", None, "so\nrain-4"]
    assert share([[True, True], [False, False, False, False]]) == 1 / 3  # over constraints, not over prompts


@pytest.mark.parametrize(
    ("names", "kwargs", "message"),
    [
        (["format:nothing"], [{}], "unknown constraint 'format:nothing'"),
        (["count:numbers"], [{"N": None}], "'count:numbers' lacks 'N'"),
        (["count:numbers"], [{"N": 1, "M": 2}], "does not take"),
        (["count:numbers"], [], "1 constraints but 0 kwargs"),
    ],
)
def test_a_constraint_that_is_none_is_an_error(names, kwargs, message):
    with pytest.raises(ValueError, match=message):
        grader.grade("p", "4", names, kwargs)


@pytest.mark.parametrize(("start", "end", "span"), [(0, 12, "Summarise the"), (0, 0, "S"), (3.0, 8.0, "marise")])
def test_a_span_may_begin_at_0(start, end, span):
    """Repeated, since the library would draw another start at random."""
    kwargs = [{"prompt_to_repeat": "Summarise the history of printing.", "n_start": start, "n_end": end}]
    for _ in range(20):
        assert grader.grade("p", span, ["repeat:repeat_span"], kwargs).strict == (True,)
        assert grader.grade("p", span + "x", ["repeat:repeat_span"], kwargs).strict == (False,)
    with pytest.raises(ValueError, match="does not take"):
        grader.grade("p", "a", ["repeat:repeat_span"], [{"prompt_to_repeat": "", "n_start": 0, "n_end": 1}])


def test_the_loose_variants():
    assert grader.loose_variants("*a*\nb\nc") == ["*a*\nb\nc", "b\nc", "*a*\nb", "b", "a\nb\nc", "b\nc", "a\nb", "b"]
    assert grader.answer_text("a </think>\n\n b \n") == "b"
    assert grader.answer_text("<think>a") == ""
    assert grader.answer_text(" a\n") == " a\n"


def test_missing_nltk_data_is_one_sentence_and_nothing_is_downloaded(tmp_path):
    code = (
        "import nltk, nltk.downloader\n"
        "nltk.data.path.clear()\n"
        "def forbidden(*a, **k): raise SystemExit('downloaded')\n"
        "nltk.download = forbidden\n"
        "import tasks.ifbench.data, tasks.ifbench.grader, tasks.ifbench.results\n"
        "from harness.errors import UserError\n"
        "for ask in (lambda: tasks.ifbench.data.load(data_dir=None), lambda: tasks.ifbench.checkers.checkers()):\n"
        "    try: ask()\n"
        "    except UserError as error: print(error)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("NLTK_DATA", "BENCHMARK_DATA")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.count("IFBench needs the NLTK data tokenizers/punkt_tab, corpora/stopwords") == 2


@pytest.mark.skipif(DATA is None, reason="BENCHMARK_DATA does not name a folder with ifbench/ and nltk_data/")
def test_both_versions_of_the_data_load():
    old, new = data.load(data_dir=DATA)["test"], data.load_300(data_dir=DATA)["test"]
    assert (len(old), len(new)) == (294, 300)
    counts = [sum(len(json.loads(text)) for text in split["constraints"]) for split in (old, new)]
    assert counts == [335, 344]


def test_a_row_that_is_none_is_named(tmp_path):
    (tmp_path / "ifbench").mkdir()
    (tmp_path / "ifbench" / "test_294.jsonl").write_text('{"key": "1", "prompt": "p", "instruction_id_list": ["a"]}\n')
    with pytest.raises(UserError, match=r"test_294.jsonl, row 1 is not a row of IFBench"):
        data.load(data_dir=str(tmp_path))

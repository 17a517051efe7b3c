"""Rows become prompts: conversations of every layout, answers that never leak, templates with variables and clocks."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from harness.errors import UserError
from harness.models.template import check_template, render, template_difference
from harness.training.conversations import example_of, first_question
from harness.training.prompts import load_prompts, prompt_doubts

ASK, ANSWER = {"role": "user", "content": "Add 1 ?"}, {"role": "assistant", "content": "2 ."}
HUMAN, GPT = {"from": "human", "value": "Add 1 ?"}, {"from": "gpt", "value": "2 ."}
PARTS = [{"type": "text", "text": "Add "}, {"type": "text", "text": "1 ?"}]


@pytest.fixture
def tokenizer(random_pair: Path) -> PreTrainedTokenizerBase:
    """One that each test may change."""
    return AutoTokenizer.from_pretrained(random_pair / "student")


def load(tokenizer: PreTrainedTokenizerBase, tmp_path: Path, rows: list[dict[str, Any]], **kwargs: Any):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_prompts(str(path), tokenizer, split="train", max_tokens=64, template_kwargs=kwargs)


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"prompt": "Add 1 ?"}, None),
        ({"prompt": [ASK]}, None),
        ({"problem": "Add 1 ?", "answer": "2"}, None),
        ({"question": "Add 1 ?", "text": "x"}, None),
        ({"messages": [ASK]}, None),
        ({"messages": [{**ASK, "content": PARTS}]}, None),
        ({"messages": [ASK, ANSWER]}, "2 ."),
        ({"messages": [ASK, ANSWER], "reference": "2 ."}, "2 ."),
        ({"conversations": [HUMAN, GPT], "domain": "math"}, "2 ."),
        ({"conversations": [ASK, ANSWER]}, "2 ."),
        ({"messages": None, "prompt": "Add 1 ?", "reference": "3"}, "3"),
    ],
)
def test_every_layout_gives_the_same_prompt(row: dict[str, Any], reference: str | None) -> None:
    example = example_of(row, "row 1")
    assert [(turn["role"], turn["content"]) for turn in example.conversation] == [("user", "Add 1 ?")]
    assert example.reference == reference
    assert first_question(row, "row 1") == "Add 1 ?"


def test_earlier_turns_stay_and_further_keys_go_to_the_template() -> None:
    turns = [{"role": "system", "content": "Be brief."}, ASK, {**ANSWER, "thinking": "so", "name": None}, ASK]
    conversation = example_of({"messages": turns}, "row 1").conversation
    assert [turn["role"] for turn in conversation] == ["system", "user", "assistant", "user"]
    assert conversation[2] == {**ANSWER, "thinking": "so"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"text": "a", "label": 1},
            "has none of the columns messages, conversations, prompt, problem, question; it has label, text",
        ),
        ({"messages": []}, "messages is empty"),
        ({"messages": json.dumps([ASK])}, "messages is a text; it must be a list of turns"),
        ({"messages": ["Add 1 ?"]}, "messages is no list of turns"),
        ({"messages": [{**ASK, "content": None}]}, "messages, turn 1: is None; it must be a text"),
        ({"messages": [{**ASK, "content": [{"type": "image"}]}]}, "a part of its content is no text"),
        ({"messages": [{"content": "hi"}]}, "turn 1: role is None; it must be one of system, developer, user"),
        ({"messages": [{**ASK, "role": "human"}]}, "role is 'human'"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "from is 'robot'; it must be one of human"),
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "no user's turn at its end"),
        ({"messages": [ASK, ANSWER, ANSWER]}, "no user's turn at its end"),
        ({"messages": [ANSWER]}, "no user's turn at its end"),
        ({"messages": [ASK, ANSWER], "reference": "3"}, "are two answers"),
        ({"prompt": 3}, "prompt is no list of turns"),
        ({"prompt": " \n"}, "prompt: is empty"),
        ({"prompt": "\ud800"}, "half of a surrogate pair"),
        ({"prompt": "Add 1 ?", "reference": 3}, "reference: is 3; it must be a text"),
        ({"prompt": "Add 1 ?", "reference": ""}, "reference: is empty"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(row: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        example_of(row, "data.jsonl, line 7")
    assert str(error.value).startswith("data.jsonl, line 7: ") and words in str(error.value)


def test_an_answer_is_a_reference_and_no_part_of_the_prompt(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    plain, answered = load(tokenizer, tmp_path, [{"messages": [ASK]}, {"messages": [ASK, ANSWER]}])
    assert plain.ids == answered.ids and plain.reference_ids is None
    assert answered.reference_ids == (*tokenizer("2 .", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
    tokenizer.eos_token = None
    assert answered.reference_ids is None  # a response without an end would never be learned to end


def test_ids_are_the_rows_own_or_their_numbers(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows = [{"prompt": "Add 1 ?", "id": None}, {"prompt": "Add 2 ?", "id": "a"}, {"prompt": "Add 3 ?"}]
    assert [prompt.prompt_id for prompt in load(tokenizer, tmp_path, rows)] == ["0", "a", "2"]


THINKING = "{{ messages[-1].content }}{% if enable_thinking is defined and not enable_thinking %} no{% endif %} ?"
CLOCK = "{{ strftime_now('%d %b %Y') }} {{ messages[-1].content }}"


def test_variables_reach_the_template(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = THINKING
    assert render(tokenizer, [ASK], {}) == "Add 1 ? ?"
    assert render(tokenizer, [ASK], {"enable_thinking": False}) == "Add 1 ? no ?"


def test_a_variable_that_changes_nothing_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.chat_template = THINKING
    check_template(tokenizer, {"enable_thinking": False})
    with pytest.raises(UserError, match=r"chat_template_kwargs.enable_thinkin: .*no variable of this name"):
        load(tokenizer, tmp_path, [{"prompt": "a"}], enable_thinkin=False)
    with pytest.raises(UserError, match="add_generation_prompt is set by the harness"):
        check_template(tokenizer, {"add_generation_prompt": False})
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        check_template(tokenizer, {})


def test_a_template_that_writes_the_date_gets_a_fixed_one(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CLOCK
    assert render(tokenizer, [ASK], {}) == "26 Jul 2024 Add 1 ?"


@pytest.mark.parametrize("draw", ["range(1000)|random", "lipsum(n=1, html=False)"])
def test_a_template_that_draws_draws_the_same(tokenizer: PreTrainedTokenizerBase, draw: str) -> None:
    """Methods of one table, and runs that are taken up again, see one prompt; who draws beside it is not disturbed."""
    tokenizer.chat_template = "{{ " + draw + " }} {{ messages[0].content }}"
    random.seed(5)
    expected = [random.random() for _ in range(2)]
    random.seed(5)
    texts = []
    for _ in range(2):
        texts.append(render(tokenizer, [ASK], {}))
        assert random.random() == expected.pop(0)
    assert texts[0] == texts[1] and texts[0].endswith(" Add 1 ?")


@pytest.mark.parametrize("template", ["User: Hello", "User: {{ messages[0].content[:3] }}"])
def test_a_template_that_leaves_the_question_out_is_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, template: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=r"leaves the question out: of 'What is 1 \+ 1\?' it makes 'User: (Hello|Wha)'"):
        load(tokenizer, tmp_path, [{"prompt": "Add 1"}])


def test_a_system_turn_that_the_template_leaves_out_is_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    row = {"messages": [{"role": "system", "content": " Add . "}, ASK]}
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | trim }} {% endfor %}"
    assert len(load(tokenizer, tmp_path, [row])) == 1
    tokenizer.chat_template = "{{ messages[-1].content }}"
    with pytest.raises(UserError, match=r"line 1: the chat template leaves the system turn ' Add \. ' out; take it"):
        load(tokenizer, tmp_path, [row])


def test_prompts_that_spell_out_special_tokens_are_said(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Rendered already, as by another framework: a second template goes around it."""
    end = tokenizer.eos_token
    rendered = load(tokenizer, tmp_path, [{"prompt": "Add 1"}, {"prompt": f"Add 1 {end} 2"}, {"prompt": f"Add {end}"}])
    (said,) = prompt_doubts("a.jsonl", rendered)
    assert said.startswith("2 of the 3 prompts of setting.prompts='a.jsonl' spell out a special token")
    assert f"(prompt '1': '{end}')" in said
    assert list(prompt_doubts("a.jsonl", load(tokenizer, tmp_path, [{"prompt": "Add 1"}]))) == []


def test_a_template_that_writes_megabytes_is_refused_before_they_are_tokenised(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.chat_template = "{{ 'ab ' * 1000000 }}{{ messages[0].content }}"
    with pytest.raises(UserError, match=r"line 1: the prompt has 3000005 characters, more than"):
        load(tokenizer, tmp_path, [{"prompt": "Add 1"}])


def test_an_evaluation_gets_the_fixed_date_too(tokenizer: PreTrainedTokenizerBase) -> None:
    from harness.evaluation.lm import EngineLM
    from harness.evaluation.model import Drawing
    from tests.evaluation.scoring import model_of
    from tests.scripted import ScriptedEngine

    tokenizer.chat_template = CLOCK
    model = EngineLM(model_of(ScriptedEngine(lambda request: (1,)), tokenizer, 64), Drawing(run_seed=0))
    assert model.apply_chat_template([ASK]) == "26 Jul 2024 Add 1 ?"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{% for m in messages %}{{ m.content }}", "Unexpected end of template"),
        ("{{ messages[-1].content + 3 }}", "can only concatenate str"),
        ("{{ messages[-1].nothing.more }}", "has no attribute 'nothing'"),
    ],
)
def test_a_template_that_refuses_gives_its_message(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, template: str, words: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(UserError) as error:
        load(tokenizer, tmp_path, [{"prompt": "a"}])
    assert "rows.jsonl, line 1: the chat template cannot render it: " in str(error.value) and words in str(error.value)


def test_the_first_difference_to_the_teachers_template(tokenizer: PreTrainedTokenizerBase, random_pair: Path) -> None:
    teacher = AutoTokenizer.from_pretrained(random_pair / "teacher")
    assert template_difference(tokenizer, teacher, {}) == ""
    tokenizer.chat_template, teacher.chat_template = (
        "User: {{ messages[0].content }}",
        "User: {{ messages[0].content }} So:",
    )
    said = template_difference(tokenizer, teacher, {})
    assert said == "at character 20 the student's has 'User: What is 1 + 1?', the teacher's 'User: What is 1 + 1? So:'"
    tokenizer.chat_template = "{# another #}User: {{ messages[0].content }} So:"
    assert template_difference(tokenizer, teacher, {}) == ""  # another text, the same prompts
    teacher.chat_template = "{{ raise_exception('no') }}"
    assert template_difference(tokenizer, teacher, {}) == "of the teacher the chat template cannot render it: no"
    teacher.chat_template = None
    assert template_difference(tokenizer, teacher, {}) == "the teacher has no chat template"


def test_a_line_of_a_hundred_megabytes_is_refused_before_it_is_tokenised(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Tokenising it would take minutes."""
    started = time.perf_counter()
    with pytest.raises(UserError, match=r"line 2: the prompt has 100000000 characters, more than setting.max_prompt"):
        load(tokenizer, tmp_path, [{"prompt": "Add 1 ?"}, {"prompt": "x " * 50_000_000}])
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Add \ud800 ?"}, "prompt: holds half of a surrogate pair"),
        ({"prompt": "Add 1 ?", "id": "\ud800"}, "id is"),
        ({"prompt": "Add 1 ?", "id": {"a": 1}}, "id is"),
        ({"prompt": " \u2028\n"}, "prompt: is empty"),
        ({"messages": [{"role": "user"}]}, "turn 1: is None; it must be a text"),
        ({"messages": [{"content": "x"}]}, "turn 1: role is None"),
        ({"messages": {"role": "user", "content": "x"}}, "is no list of turns"),
    ],
)
def test_a_row_that_says_nothing_is_named(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, row: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: ") as error:
        load(tokenizer, tmp_path, [{"prompt": "Add 1 ?"}, row])
    assert words in str(error.value)

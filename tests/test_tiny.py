"""The embedded experiment: problems, tokenizer, taught solutions, and the shipped models."""

import json
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.tiny import CHECKPOINTS
from harness.tiny.__main__ import main
from harness.tiny.build import is_complete
from harness.tiny.data import write_data
from harness.tiny.language import EOS, MAX_POSITIONS, VOCAB_SIZE, build_tokenizer, write_solution, wrong_facts
from harness.tiny.problems import Problem, compute, draw_problem
from harness.tiny.recipes import RECIPES, STUDENT, Phase
from harness.tiny.train import (
    IGNORE,
    corrupted,
    initial_model,
    is_correct,
    prompt_ids,
    sample_solutions,
    training_batch,
)

PROMPTS = CHECKPOINTS.parent / "prompts.jsonl"
REPOSITORY = Path(__file__).parents[1]
TEST, DEV = REPOSITORY / "tasks/arithmetic/test.jsonl", REPOSITORY / "tasks/arithmetic/dev.jsonl"
PROMPTS = REPOSITORY / "harness/tiny/prompts.jsonl"
AIME_LIKE = (
    "Find the number of ordered pairs $(a,b)$ of integers with $1 \\le a < b \\le 100$ such that\n\n"
    "\\[\\frac{a}{b} + \\frac{b}{a} = \\boxed{k}\\]\n\nfor some “integer” k , and the sum is 9 . "
    "[asy] draw((0,0)--(1,1)); [/asy] "
)


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def independent_answer(text: str) -> str:
    """The calculation done anew from the words of a problem, on exact integers, reduced once at the end."""
    value = int(re.match(r"Start with (\d) ", text)[1])
    for word, digit in re.findall(r", (add|subtract|times) (\d)", text):
        value = {"add": value.__add__, "subtract": value.__sub__, "times": value.__mul__}[word](int(digit))
    return str(value % 10)


def test_splits_are_disjoint_and_rows_distinct():
    texts = {
        "test": [row["problem"] for row in rows_of(TEST)],
        "development": [row["problem"] for row in rows_of(DEV)],
        "train": [row["prompt"] for row in rows_of(PROMPTS)],
    }
    assert {split: len(rows) for split, rows in texts.items()} == {"test": 256, "development": 256, "train": 4096}
    everything = [text for rows in texts.values() for text in rows]
    assert len(set(everything)) == len(everything)
    assert len({row["id"] for path in (TEST, DEV, PROMPTS) for row in rows_of(path)}) == len(everything)


def test_split_is_a_property_of_the_problem():
    """Whatever is drawn for one split, with any seed, belongs to it and so to no other."""
    drawn = {
        split: {draw_problem(Random(seed), split) for seed in range(300)} for split in ("train", "development", "test")
    }
    for split, problems in drawn.items():
        assert {problem.split for problem in problems} == {split}
    assert not drawn["train"] & drawn["test"] and not drawn["train"] & drawn["development"]
    assert {problem.split for problem in training_problems(steps=3)} == {"train"}


def training_problems(steps: int) -> list[Problem]:
    """The problems that `training_batch` teaches, read back from its token ids."""
    tokenizer, rng, problems = build_tokenizer(), Random(5), []
    for _ in range(steps):
        inputs, _targets = training_batch(Phase(1, 1e-3, 0.5), 16, rng)
        for text in tokenizer.batch_decode(inputs):
            start = int(re.search(r"Start with (\d)", text)[1])
            signs = {"add": "+", "subtract": "-", "times": "*"}
            steps_of = re.findall(r", (add|subtract|times) (\d)", text.split("What")[0])
            problems.append(Problem(start, tuple((signs[word], int(digit)) for word, digit in steps_of)))
    return problems


def test_answers_agree_with_an_independent_computation():
    for path in (TEST, DEV, PROMPTS):
        for row in rows_of(path):
            assert row["answer"] == independent_answer(row.get("problem") or row["prompt"])


def test_answers_are_spread_over_the_digits():
    counts = [sum(row["answer"] == str(digit) for row in rows_of(TEST)) for digit in range(10)]
    assert min(counts) >= 10 and max(counts) <= 60  # of 256; products pull to 0


def test_regenerated_data_is_the_committed_data(tmp_path):
    for path in write_data(tmp_path):
        assert path.read_bytes() == (REPOSITORY / path.relative_to(tmp_path)).read_bytes(), path


def test_references_are_correct_solutions():
    tokenizer = build_tokenizer()
    for row in rows_of(PROMPTS):
        assert row["reference"].startswith("quick : ") and f"\\boxed{{ {row['answer']} }} ." in row["reference"]
    assert tokenizer.unk_token_id not in tokenizer(" ".join(row["reference"] for row in rows_of(PROMPTS)))["input_ids"]


@pytest.mark.parametrize("style", ["A", "B"])
def test_solutions_without_wrong_facts_are_right(style):
    rng = Random(1)
    for _ in range(200):
        problem = draw_problem(rng, "train")
        words, slips = write_solution(problem, style, rng)
        assert is_correct(problem, " ".join(words)) and len(words) == len(slips) and not any(slips)


def test_solution_literals():
    problem = Problem(6, (("+", 5), ("*", 9), ("-", 5)))  # 6 + 5 = 11 -> 1, 1 * 9 = 9, 9 - 5 = 4
    assert problem.text == "Start with 6 , add 5 , times 9 , subtract 5 . What is the result mod 1 0 ?"
    style_a = " ".join(write_solution(problem, "A", Random(0))[0])
    steps = re.findall(r"(?:Then|Now|Next) (\d [-+*] \d) (?:=|gives|becomes) (\d) \.", style_a)
    assert steps == [("6 + 5", "1"), ("1 * 9", "9"), ("9 - 5", "4")] and style_a.endswith("\\boxed{ 4 } .")
    style_b = " ".join(write_solution(problem, "B", Random(0))[0])
    assert re.findall(r"(\w+) (\d) : (\d)", style_b) == [("add", "5", "1"), ("times", "9", "9"), ("subtract", "5", "4")]


def test_wrong_facts_are_wrong_nested_and_of_the_stated_share():
    facts = 10 * (9 + 9 + 8)  # values × operands of add, subtract, times
    assert wrong_facts(0.0) == {} and len(wrong_facts(0.25)) == round(0.25 * facts)
    assert wrong_facts(0.2).items() <= wrong_facts(0.25).items()
    assert all(result != compute(*fact) for fact, result in wrong_facts(1.0).items())


def test_slips_carry_no_loss_when_they_should_not():
    inputs, targets = training_batch(Phase(1, 1e-3, 1.0, slips=0.5, learn_slips=False), 32, Random(0))
    results = holes = 0
    for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        text = build_tokenizer().decode(row)
        results += len(re.findall(r"(?:=|gives|becomes) \d", text))
        first = next(i for i, token in enumerate(target) if token != IGNORE)
        holes += target[first : target.index(EOS)].count(IGNORE)
    assert 0.35 < holes / results < 0.65  # half of the results, and no other token of a solution


def test_corruption_is_in_the_input_and_digits_that_rested_on_it_are_not_learned():
    solution = build_tokenizer()("Then 6 + 5 becomes 1 . So \\boxed{ 1 } .")["input_ids"]
    clean, targets = corrupted(solution, solution, 0.0, Random(0))
    assert clean == targets == solution
    rng, replaced = Random(0), 0
    for _ in range(200):
        inputs, targets = corrupted(solution, solution, 0.05, rng)
        wrong = [a != b for a, b in zip(inputs, solution, strict=True)]
        replaced += sum(wrong)
        for i, target in enumerate(targets):
            assert target in (solution[i], IGNORE)
            if any(wrong[max(0, i - 5) : i]) and i in (1, 3, 5, 9):  # 6, 5, 1 and the boxed 1
                assert target == IGNORE
            if i not in (1, 3, 5, 9):
                assert target == solution[i]
    assert 60 < replaced < 180  # of 200 × 12 tokens, 5 % are 120


def test_tokenizer_reads_and_writes_the_language():
    tokenizer = build_tokenizer()
    row = rows_of(PROMPTS)[0]
    user = {"role": "user", "content": row["prompt"]}
    prompt = tokenizer.apply_chat_template([user], add_generation_prompt=True, tokenize=True, return_dict=False)
    assert tokenizer.decode(prompt) == "<bos> " + row["prompt"]
    problem = draw_problem(Random(0), "test")
    message = {"role": "user", "content": problem.text}
    assert prompt_ids(problem) == tokenizer.apply_chat_template([message], return_dict=False)
    whole = [user, {"role": "assistant", "content": row["reference"]}]
    taught = tokenizer.apply_chat_template(whole, return_dict=False)
    assert tokenizer.decode(taught) == f"<bos> {row['prompt']} {row['reference']} <eos>"
    assert re.search(r"\\boxed\{(.*)\}", tokenizer.decode(taught, skip_special_tokens=True))[1].strip() == row["answer"]
    assert len(tokenizer) == tokenizer.vocab_size == VOCAB_SIZE and tokenizer.model_max_length == MAX_POSITIONS
    every = tokenizer.decode(range(VOCAB_SIZE))
    assert tokenizer(every)["input_ids"] == list(range(VOCAB_SIZE))


def test_unknown_words_become_unk():
    tokenizer = build_tokenizer()
    ids = tokenizer("Find 3 élève \\boxed{ 8 } add7")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<unk>", "3", "<unk>", "\\boxed{", "8", "}", "<unk>"]
    assert tokenizer("")["input_ids"] == []


def test_aime_like_text_passes_through_all_positions():
    tokenizer, model = build_tokenizer(), initial_model(STUDENT, 0)
    message = {"role": "user", "content": AIME_LIKE * 100}
    ids = tokenizer.apply_chat_template([message], add_generation_prompt=True, return_dict=False)[:MAX_POSITIONS]
    assert len(ids) == MAX_POSITIONS
    with torch.inference_mode():
        assert model(input_ids=torch.tensor([ids])).logits[:, -1].isfinite().all()


def test_initial_weights_depend_on_the_replicate_and_not_on_global_state():
    torch.manual_seed(1)
    first = initial_model(STUDENT, 0).state_dict()
    torch.manual_seed(2)
    again, other = initial_model(STUDENT, 0).state_dict(), initial_model(STUDENT, 1).state_dict()
    name = "model.layers.1.mlp.gate_proj.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


def test_recipe_hash_follows_the_recipe():
    hashes = {recipe.hash for recipe in RECIPES.values()} | {r.scaled(0.5).hash for r in RECIPES.values()}
    assert len(hashes) == 2 * len(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_model_is_an_ordinary_checkpoint(name):
    folder = CHECKPOINTS / name
    assert is_complete(folder, RECIPES[name])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "Qwen3ForCausalLM" and model.config.head_dim == 32
    assert model.config.tie_word_embeddings and model.config.max_position_embeddings == MAX_POSITIONS
    assert sum(p.numel() for p in model.parameters()) == (78_272 if name.startswith("student") else 301_920)
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab() and tokenizer.chat_template
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == EOS
    message = [{"role": "user", "content": "Start with 6 , add 5 . What is the result mod 1 0 ?"}]
    inputs = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert model.generate(**inputs, do_sample=False, max_new_tokens=4).shape[1] == inputs["input_ids"].shape[1] + 4


BOUNDS = {  # sampled accuracy that the comparison needs; the students' upper bound leaves room to learn
    "teacher": (0.94, 1.0),
    "teacher_style": (0.98, 1.0),
    "student": (0.24, 0.36),
    "student_latent": (0.24, 0.36),
    "student_style": (0.24, 0.36),
}


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_model_is_as_good_as_its_recipe_says(name):
    """The recorded accuracy is in the range that the comparison needs, and a fresh sample of 128 agrees with it."""
    recorded = json.loads((CHECKPOINTS / name / "recipe.json").read_text())["evaluation"]["accuracy"]
    low, high = BOUNDS[name]
    assert low <= recorded <= high
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINTS / name, dtype=torch.float32)
    right = count = 0
    for length in (3, 4, 5):
        rng = Random(length)
        problems = [draw_problem(rng, "development", length) for _ in range(43)]
        prompts = torch.tensor([prompt_ids(problem) for problem in problems])
        solutions = sample_solutions(model, prompts, torch.Generator().manual_seed(length))
        right += sum(is_correct(problem, text) for problem, text in zip(problems, solutions, strict=True))
        count += len(problems)
    spread = (recorded * (1 - recorded) / count) ** 0.5
    assert abs(right / count - recorded) <= 4 * spread + 0.02


def test_shipped_models_are_small():
    assert sum(path.stat().st_size for path in CHECKPOINTS.rglob("*") if path.is_file()) < 2_500_000


def few_steps(out: Path) -> list[str]:
    return ["--out", str(out), "--models", "student", "--steps-scale", "0.007"]  # 5 of 700


@pytest.mark.slow
def test_build_makes_keeps_and_refuses(tmp_path, capsys):
    """The command builds once, keeps what it built, and refuses what another recipe built."""
    assert main(few_steps(tmp_path)) == 0
    output = capsys.readouterr()
    assert "sampled accuracy" in output.out and "steps/s" not in output.err
    folder = tmp_path / "student"
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    record = json.loads((folder / "recipe.json").read_text())
    assert record["recipe"]["phases"][0]["steps"] == 5 and record["recipe_hash"] != RECIPES["student"].hash
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert main(few_steps(tmp_path)) == 0 and "kept" in capsys.readouterr().out
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert main(["--out", str(tmp_path), "--models", "student"]) == 2
    assert "--fresh" in capsys.readouterr().err


@pytest.mark.slow
def test_command_builds_the_same_bytes_twice(tmp_path):
    """`python -m harness.tiny` in processes of its own: two builds agree to the last bit, a replicate does not."""
    weights = []
    for name, more in (("first", []), ("second", []), ("third", ["--student-seed", "1"])):
        command = [sys.executable, "-m", "harness.tiny", *few_steps(tmp_path / name), *more]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / name / ("student_seed1" if more else ".")
        weights.append((folder / "student" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--student-seed", "1", "--models", "teacher"], "--student-seed"),
        (["--workers", "0"], "--workers"),
        (["--steps-scale", "nan"], "--steps-scale"),
        (["--out", "/dev/null/models"], "--out"),
    ],
)
def test_bad_options_are_one_sentence_and_exit_code_2(options, word, capsys):
    assert main(options) == 2
    error = capsys.readouterr().err
    assert word in error and error.count("\n") == 1

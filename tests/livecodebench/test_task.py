"""The task in lm-eval, by the harness's own driver, on a scripted model."""

from __future__ import annotations

import json

import pytest

import harness.sandbox.packages as packages_module
from harness.errors import UserError
from harness.sandbox import Sandbox
from tasks.livecodebench_v6 import task as task_module
from tasks.livecodebench_v6.prompts import prompt
from tests.evaluation.scoring import protocol_hashes, scored
from tests.livecodebench.conftest import DATA
from tests.livecodebench.hostile import ATTACKS
from tests.scripted import ScriptedEngine

MAX_LENGTH = 8192


def fenced(code: str) -> str:
    return f"<think>Hm.</think>Here:\n```python\n{code}\n```"


def run(engine, tokenizer, data_dir, name="livecodebench_v6", **options):
    (result,) = scored(engine, tokenizer, [name], run_seed=0, max_length=MAX_LENGTH, data_dir=data_dir, **options)
    return result


@pytest.mark.parametrize("name", ["livecodebench_v6", "livecodebench_v6_clean"])
def test_right_programs_score_1(name, tokenizer, data_dir, solutions, sandbox):
    engine = ScriptedEngine(lambda request: fenced(solutions[request.prompt_id.split("/")[1]]), tokenizer)
    result = run(engine, tokenizer, data_dir, name)
    row = result.evaluation
    assert (row.score, row.problems, row.samples, row.correct) == (1.0, 6, 1, (1,) * 6)  # one sample each by default
    assert result.metrics == {"avg_at_k": 1.0, "pass_at_k": 1.0, "correct": 6.0, "extracted": 1.0, "sandboxed": 1.0}
    assert [item.item_id for item in result.items] == ["syn_a", "syn_b", "syn_c", "syn_1", "syn_2", "syn_3"]
    assert len(engine.requests) == 6


def test_a_window_is_a_protocol_of_its_own(tokenizer, data_dir, solutions, sandbox):
    engine = ScriptedEngine(lambda request: fenced(solutions[request.prompt_id.split("/")[1]]), tokenizer)
    february = {"start": "2025-02-01", "end": "2025-02-28"}
    result = run(engine, tokenizer, data_dir, metadata=february)
    assert [item.item_id for item in result.items] == ["syn_b", "syn_2"]
    hashes = {
        protocol_hashes(["livecodebench_v6"], tokenizer, data_dir=data_dir, metadata=window)["livecodebench_v6"]
        for window in (None, february, {"start": "2025-02-01"}, {"end": "2025-04-30"})
    }
    assert len(hashes) == 4  # though the last window holds all problems
    with pytest.raises(
        UserError, match=r"evaluation\.metadata\.livecodebench_v6\.strat: the task has no such key; it has"
    ):
        protocol_hashes(["livecodebench_v6"], tokenizer, data_dir=data_dir, metadata={"strat": "2025-02-01"})


@pytest.mark.parametrize(("name", "held"), [("livecodebench_v1_v6", 6), ("livecodebench_2408_2505", 5)])
def test_the_releases_that_are_called_v6(name, held, tokenizer, tmp_path, sandbox):
    """A row in each of the six files; the first is of a contest of 2023."""
    (tmp_path / "livecodebench_v6").mkdir()
    for number, row in enumerate((DATA / "lcb_format_synthetic.jsonl").read_text().splitlines(), start=1):
        content = json.loads(row) | ({"contest_date": "2023-05-07T00:00:00"} if number == 1 else {})
        file = tmp_path / "livecodebench_v6" / f"test{number if number > 1 else ''}.jsonl"
        file.write_text(json.dumps(content) + "\n")
    result = run(ScriptedEngine(lambda request: "no program", tokenizer), tokenizer, str(tmp_path), name)
    assert (result.evaluation.problems, result.evaluation.score) == (held, 0.0)


def test_every_sample_is_graded_on_its_own(tokenizer, data_dir, solutions, sandbox):
    """Of two samples the first is right for stdin problems, the second for functional ones; one has no program."""

    def answer(request):
        problem = request.prompt_id.split("/")[1]
        if problem == "syn_3":
            return "I give up."
        right = (request.sample_index == 0) is (problem in ("syn_a", "syn_b", "syn_c"))
        return fenced(solutions[problem]) if right else fenced("class Solution: pass")

    result = run(ScriptedEngine(answer, tokenizer), tokenizer, data_dir, samples=2)
    assert result.evaluation.correct == (1, 1, 1, 1, 1, 0)
    assert [item.correct for item in result.items] == [1, 0] * 3 + [0, 1] * 2 + [0, 0]
    assert result.metrics["avg_at_k"] == 5 / 12 and result.metrics["extracted"] == 10 / 12


def test_no_answer_ends_an_evaluation(tokenizer, data_dir, solutions, sandbox):
    """An attack a sample on one problem of its kind; all other answers are right, and count."""
    problems = {True: "syn_1", False: "syn_a"}  # functional or not
    names = "dict_collisions dict_collisions_short array_memory_more ratio attributes_and_links inodes alarm_off"
    attacks = [ATTACKS[name] for name in names.split()]

    def answer(request):
        problem = request.prompt_id.split("/")[1]
        attack = attacks[request.sample_index]
        code = solutions[problem]
        return fenced(f"{attack.code}\nadd = globals().get('f')" if problem == problems[attack.functional] else code)

    result = run(ScriptedEngine(answer, tokenizer), tokenizer, data_dir, samples=len(attacks))
    counts = dict(zip(("syn_a", "syn_b", "syn_c", "syn_1", "syn_2", "syn_3"), result.evaluation.correct, strict=True))
    attacked = {problem: sum(problem == problems[attack.functional] for attack in attacks) for problem in counts}
    assert counts == {problem: len(attacks) - attacked[problem] for problem in counts}


def test_what_programs_may_import_is_part_of_the_protocol(tokenizer, data_dir, sandbox, monkeypatch):
    installed = {"numpy": "2.4.6", "sympy": "1.14.0"}
    monkeypatch.setattr(task_module, "require_packages", lambda: installed)
    hashes = []
    for version in ("1.14.0", "1.15.0", "1.14.0"):
        installed["sympy"] = version
        hashes.append(protocol_hashes(["livecodebench_v6"], tokenizer, data_dir=data_dir)["livecodebench_v6"])
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_missing_package_is_an_error_before_anything_is_generated(tokenizer, data_dir, sandbox, monkeypatch):
    absent = packages_module.Package("no-such-package", "1.0", "no_such_package")
    monkeypatch.setattr(packages_module, "PACKAGES", (*packages_module.PACKAGES, absent))
    packages_module.installed_versions.cache_clear()
    engine = ScriptedEngine(lambda request: "nothing", tokenizer)
    with pytest.raises(UserError, match=r"no-such-package is not installed; run `pip install -e '\.\[code\]'`"):
        run(engine, tokenizer, data_dir)
    assert engine.requests == []
    packages_module.installed_versions.cache_clear()


def test_the_mode_is_part_of_the_protocol(tokenizer, data_dir, sandbox):
    hashes = protocol_hashes(["livecodebench_v6", "livecodebench_v6_clean"], tokenizer, data_dir=data_dir)
    assert len(set(hashes.values())) == 2


def test_the_prompt_reaches_the_model_with_its_system_message(tokenizer, data_dir, solutions, sandbox):
    engine = ScriptedEngine(lambda request: "nothing", tokenizer)
    run(engine, tokenizer, data_dir, limit=1)
    system, user = prompt("Read n and n integers; print their sum.", "", "generic")
    assert (
        tokenizer.decode(engine.requests[0].prompt_ids)
        == f"<s><|system|>{system}<|end|><|user|>{user}<|end|><|assistant|>"
    )


def test_without_a_sandbox_nothing_is_generated(tokenizer, data_dir, monkeypatch):
    def refuse():
        raise UserError("install bubblewrap")

    monkeypatch.setattr(task_module.Sandbox, "detect", refuse)
    engine = ScriptedEngine(lambda request: "nothing", tokenizer)
    with pytest.raises(UserError, match="install bubblewrap"):
        run(engine, tokenizer, data_dir)
    assert engine.requests == []


def test_the_result_says_when_programs_ran_unprotected(tokenizer, data_dir, monkeypatch):
    from harness.sandbox.confinement import Unconfined

    monkeypatch.setattr(task_module.Sandbox, "detect", lambda: Sandbox(Unconfined()))
    engine = ScriptedEngine(lambda request: fenced("n=int(input())\nprint(sum(map(int,input().split())))"), tokenizer)
    result = run(engine, tokenizer, data_dir, limit=1)
    assert (result.evaluation.score, result.metrics["sandboxed"]) == (1.0, 0.0)


def test_process_results_grades_plain_texts_too(data_dir, solutions, sandbox):
    doc = task_module.load(data_dir)["test"][0]
    metrics = task_module.process_results(doc, [[fenced(solutions["syn_a"]), "no"]])
    assert (metrics["correct"], metrics["avg_at_k"], metrics["sandboxed"]) == ([1, 0], 0.5, 1.0)


def test_unknown_modes_and_styles_are_refused(data_dir, sandbox):
    with pytest.raises(UserError, match="official, clean"):
        task_module.load(data_dir, mode="strict")
    with pytest.raises(UserError, match="generic, r1"):
        task_module.load(data_dir, prompt_style="poem")


def test_prompts():
    system, user = prompt("Q", "class Solution: ...", "generic")
    assert system.startswith("You are an expert Python programmer.")
    assert user.startswith("### Question:\nQ\n\n### Format: You will use the following starter code")
    assert user.endswith(
        "```python\nclass Solution: ...\n```\n\n### Answer: (use the provided format with backticks)\n\n"
    )
    assert "```python\n# YOUR CODE HERE\n```" in prompt("Q", "", "generic")[1]
    assert prompt("Q", "", "r1")[0] == ""
    with pytest.raises(ValueError, match="generic, r1"):
        prompt("Q", "", "x")

"""Bad input: one clear sentence that names the key or file, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.config.methods import register_methods
from harness.config.sweep import planned_runs
from harness.console.commands import exit_code_of
from harness.files import ROOT
from harness.run import compare
from harness.training.checks import check_comparison

STUDENT = ROOT / "harness" / "tiny" / "checkpoints" / "student"


@pytest.fixture(scope="module", autouse=True)
def _methods() -> None:
    register_methods()


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str) -> str:
    """Runs the command in this process and returns its one sentence."""
    results = tmp_path / "results"
    given = [a for a in arguments if a.startswith("results_dir=")]
    # one run is quicker to plan
    mode = [] if any("," in a and "=[" not in a for a in arguments) else ["hydra.mode=RUN"]
    code = exit_code_of(lambda: compare([*arguments, *mode, *([] if given else [f"results_dir={results}"])]))
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    (sentence,) = captured.err.strip().splitlines()
    assert sentence.startswith("error: ")
    assert not list(results.rglob("*.json"))
    return sentence


ONE_DECODING = "evaluation.decodings.arithmetic=[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch=1"], ["unknown key", "nosuch"]),
        (["setting.nosuch=1"], ["unknown key", "setting.nosuch"]),
        (["+setting.nosuch=1"], ["setting.nosuch", "not in"]),
        (["+nosuch=1"], ["unknown key", "nosuch"]),
        (["method=tropd", "method.gamma=1"], ["unknown key", "method.gamma"]),
        (["setting.steps=many"], ["setting.steps", "many", "Integer"]),
        (["seed=first"], ["seed", "first", "whole number"]),
        (["seed=0,x"], ["seed", "x", "whole number"]),
        (["fresh=maybe"], ["fresh", "maybe"]),
        (["method=tropd", "method.beta=high"], ["method.beta", "high", "Float"]),
        (["method=tropd", "method.prefix_schedule=linear"], ["prefix_schedule", "own_length", "linear"]),
        (["method=typo"], ["method/typo", "opd", "tropd"]),
        (["method=opd,typo"], ["method/typo"]),
        (["setting=typo"], ["setting/typo", "tiny_cpu"]),
        (["setting.student=/no/such/folder"], ["/no/such/folder"]),
        (["setting.prompts=/no/such.jsonl"], ["setting.prompts", "/no/such.jsonl"]),
        (["setting.temperature=0.7"], ["setting.temperature=0.7", "biased"]),
        (["setting.top_p=0.9"], ["setting.top_p=0.9"]),
        (["setting.top_k=65"], ["setting.top_k=65", "64"]),
        (["setting.top_k=0"], ["setting.top_k=0", "positive"]),
        (["setting.min_continuation=0"], ["setting.min_continuation"]),
        (["method=tropd", "setting.min_continuation=100"], ["min_continuation=100", "max_new_tokens=60"]),
        (["method=tropd", "setting.min_continuation=60"], ["method=tropd", "no teacher text"]),
        (["method=tropd", "setting.min_continuation=60", "dry_run=true"], ["method=tropd", "no teacher text"]),
        (["setting.chat_template_kwargs={enable_thinking:false}"], ["chat_template_kwargs.enable_thinking", "nothing"]),
        (["setting.chat_template_kwargs=yes"], ["setting.chat_template_kwargs", "str"]),
        (["setting.prompts=prompts.parquet"], ["setting.prompts", "no file 'prompts.parquet'"]),
        (["setting.prompts=README.md"], ["README.md", "none of .jsonl"]),
        (["setting.max_prompt_tokens=5"], ["line 1", "setting.max_prompt_tokens"]),
        (["setting=custom"], ["setting.", "not set"]),
        (["engine.name=magic"], ["engine.name", "magic"]),
        (["engine.micro_batch_prompts=7"], ["engine.micro_batch_prompts=7", "32"]),
        (["evaluation.tasks=[nosuch]"], ["nosuch", "arithmetic"]),
        (["evaluation.tasks=[aime24]", "evaluation.data_dir=/no/such"], ["/no/such", "evaluation.data_dir"]),
        (["seed=[0"], ["[0"]),
        (["seed=-1"], ["seed=-1", "from 0 to"]),
        (["seed=0,-1"], ["seed=-1", "from 0 to"]),
        (["seed=4294967296"], ["seed=4294967296", "from 0 to"]),
        (["seed=inf"], ["seed", "whole number"]),
        (["method=tropd", "method.beta=nan"], ["method.beta=nan", "finite"]),
        (["method=reopold", "method.floor=-inf"], ["method.floor=-inf", "finite"]),
        (["setting.learning_rate=nan"], ["setting.learning_rate=nan", "finite"]),
        (["setting.learning_rate=-1e-3"], ["setting.learning_rate=-0.001", "positive"]),
        (["setting.weight_decay=inf"], ["setting.weight_decay=inf", "finite"]),
        (["setting.weight_decay=-1"], ["setting.weight_decay=-1.0", "negative"]),
        (["setting.warmup_steps=-1"], ["setting.warmup_steps=-1", "negative"]),
        (["setting.adam_beta1=1"], ["setting.adam_beta1=1.0", "less than 1"]),
        (["setting.max_grad_norm=nan"], ["setting.max_grad_norm=nan", "finite"]),
        (["setting.importance_cap=nan"], ["setting.importance_cap=nan", "finite"]),
        (["setting.steps=99999999999"], ["setting.steps=99999999999", "at most"]),
        (["launch.num_processes=0"], ["launch.num_processes=0", "positive"]),
        (["engine.threads=0"], ["engine.threads=0", "positive"]),
        (["engine.threads=-2"], ["engine.threads=-2", "positive"]),
        (["engine.save_every=0"], ["engine.save_every=0", "positive"]),
        (["engine.rows_per_batch=0"], ["engine.rows_per_batch=0", "positive"]),
        (["engine.micro_batch_prompts=-32"], ["engine.micro_batch_prompts=-32", "positive"]),
        (["engine=vllm", "engine.vllm.kv_cache_gib=nan"], ["engine.vllm.kv_cache_gib=nan", "finite"]),
        (["engine=server", "engine.server.time_limit_s=inf"], ["engine.server.time_limit_s=inf", "finite"]),
        (["evaluation.dev_every=0"], ["evaluation.dev_every=0", "positive"]),
        (["++evaluation.samples.arithmetic=-1"], ["evaluation.samples.arithmetic=-1", "positive"]),
        (["++evaluation.max_new_tokens.arithmetic=0"], ["evaluation.max_new_tokens.arithmetic=0", "positive"]),
        (
            [ONE_DECODING, "++evaluation.sampling.all={temperature:nan}"],
            ["evaluation.sampling.all.temperature=nan", "finite"],
        ),
        (
            [ONE_DECODING, "++evaluation.sampling.all={top_p:1.5}"],
            ["evaluation.sampling.all.top_p=1.5", "at most 1"],
        ),
        (["engine.device=gpu"], ["engine.device='gpu'", "cpu"]),
        (["engine.device=meta"], ["engine.device='meta'", "cpu"]),
        (["engine.device=cuda:77"], ["engine.device=cuda:77", "devices"]),
        (["engine.teacher_device=auto"], ["engine.teacher_device='auto'", "cpu"]),
        (["results_dir="], ["results_dir", "folder"]),
        (["results_dir=3"], ["results_dir=3", "folder"]),
        (["setting.name="], ["setting.name=''", "plain name"]),
        (["setting.name=../../escape"], ["setting.name='../../escape'", "plain name"]),
        (["setting.name=.."], ["setting.name='..'", "plain name"]),
        (["setting.name=a\\b"], ["setting.name", "plain name"]),
        (["setting.name='a\x1b[2Jb'"], ["setting.name='a\\x1b[2Jb'", "plain name"]),
    ],
)
def test_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    sentence = refused(capsys, tmp_path, *arguments)
    for word in words:
        assert word in sentence


def test_a_problem_that_does_not_fit_into_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A pair of 24 positions, enough for the training prompt; a problem of the benchmark has more tokens."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Start with 1"}\n')
    models = []
    for side in ("student", "teacher"):
        model = Path(shutil.copytree(STUDENT.parent / side, tmp_path / side))
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 24}))
        models.append(f"setting.{side}={model}")
    given = [*models, f"setting.prompts={prompts}", "setting.max_new_tokens=8", "setting.max_prompt_tokens=24"]
    sentence = refused(capsys, tmp_path, "method=opd", "seed=0", *given)
    assert "The prompt of arithmetic/" in sentence and "leaves no room in the model's 24 positions" in sentence


def test_results_folder_that_is_not_writable(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sentence = refused(capsys, tmp_path, f"results_dir={tmp_path}/file/results")
    assert "results_dir" in sentence
    assert "not writable" in sentence


def test_tokenizers_that_differ(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(STUDENT, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["add"], vocabulary["times"] = vocabulary["times"], vocabulary["add"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    sentence = refused(capsys, tmp_path, f"setting.student={other}")
    assert "tokenizers of student and teacher differ" in sentence
    assert "'add'" in sentence or "'times'" in sentence


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"messages": []}', "messages is empty"),
        ('{"prompt": "a", "reference": 3}', "reference: is 3; it must be a text"),
        ('{"prompt": "a"', "not valid JSON"),
        ("[1]", "expected an object"),
        ('{"text": "a"}', "none of the columns messages, conversations, prompt, problem, question; it has text"),
    ],
)
def test_prompt_file_row(capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, words: str) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Start with 1"}\n' + line + "\n")
    sentence = refused(capsys, tmp_path, f"setting.prompts={prompts}")
    assert "line 2" in sentence
    assert words in sentence


def changed_tokenizer(folder: Path, template: str | None = None, **configuration: object) -> Path:
    """A copy of the student with another template, or without some entries of its tokenizer's configuration."""
    shutil.copytree(STUDENT, folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **configuration}))
    return folder


def test_a_template_that_refuses_a_prompt(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    student = changed_tokenizer(tmp_path / "student", "{{ raise_exception('System role not supported') }}")
    sentence = refused(capsys, tmp_path, f"setting.student={student}")
    assert "line 1: the chat template cannot render it: System role not supported" in sentence


def test_references_without_an_end_token(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    models = [changed_tokenizer(tmp_path / name, eos_token=None) for name in ("student", "teacher")]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Start with 1", "reference": "1"}\n')
    given = [f"setting.student={models[0]}", f"setting.teacher={models[1]}", f"setting.prompts={prompts}"]
    assert "has no end token" in refused(capsys, tmp_path, "method=sft", *given)


@pytest.mark.parametrize("method", ["sft", "gkd"])
def test_a_prompt_without_a_reference(capsys: pytest.CaptureFixture[str], tmp_path: Path, method: str) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Start with 1", "reference": "1"}\n{"prompt": "Start with 2"}\n')
    sentence = refused(capsys, tmp_path, f"method=opd,{method}", "seed=0", f"setting.prompts={prompts}")
    assert f"method={method} " in sentence and "prompt '1'" in sentence and "reference" in sentence


def test_what_is_doubtful_is_said_before_the_start(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    student = changed_tokenizer(tmp_path / "student", "{{ messages[0].content }} So:")
    given = [f"setting.student={student}", "setting.steps=2", f"results_dir={tmp_path / 'results'}"]
    check_comparison(planned_runs(["method=opd,tropd", "seed=0,1", *given]))
    first, second = capsys.readouterr().err.strip().splitlines()
    assert first.startswith(
        "warning: the teacher scores prompts that its own chat template would write in another way: at"
    )
    assert second.startswith("warning: setting.warmup_steps=5 is not less than setting.steps=2")


def test_broken_method_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import baselines

    (tmp_path / "broken.py").write_text("METHOD = 3\n")
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    code = exit_code_of(lambda: register_methods() or 0)
    assert code == 2
    assert "baselines/broken.py" in capsys.readouterr().err

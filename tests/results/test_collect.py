"""Finding records, and refusing what must not stand in one table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.results.collect import (
    PUBLISHED,
    check_comparable,
    find_runs,
    load_records,
    publish_records,
    select_evaluations,
)
from harness.results.leaderboard import build_leaderboard
from harness.results.record import RunRecord, engines_of

from .synthetic import SETTING, evaluation, replicate, run, small_comparison, write_runs


def test_finds_run_folders_sorted_by_label_and_seed(tmp_path: Path) -> None:
    changed = run("tropd", 0, [1, 2], changed_knobs={"beta": 0.1})
    write_runs(tmp_path, [run("tropd", 1, [1, 2]), changed, run("opd", 0, [1, 2]), run("tropd", 0, [1, 2])])
    found = [(found.record.label, found.record.seed, found.folder) for found in find_runs(tmp_path)]
    assert found == [
        ("opd", 0, tmp_path / "opd/seed0"),
        ("tropd", 0, tmp_path / "tropd/seed0"),
        ("tropd", 1, tmp_path / "tropd/seed1"),
        ("tropd (beta=0.1)", 0, tmp_path / "tropd-0.1/seed0"),
    ]


def test_published_records_come_back_trimmed(tmp_path: Path) -> None:
    records = small_comparison()
    publish_records(tmp_path / PUBLISHED, records)
    loaded = {(record.label, record.seed): record for record in load_records(tmp_path)}
    assert len(loaded) == len(records)
    for record in records:
        provenance = {key: value for key, value in record.provenance.items() if key != "cores"}
        assert loaded[record.label, record.seed] == dataclasses.replace(record, provenance=provenance)


@pytest.mark.parametrize("content", ['{"schema_version": 1, "meth', "", "[]", "7", '{"schema_version": 99}', "\x00"])
def test_corrupt_record_is_named_with_the_way_out(tmp_path: Path, content: str) -> None:
    write_runs(tmp_path, small_comparison())
    path = tmp_path / "opd/seed1/record.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        load_records(tmp_path)
    assert str(path) in str(error.value)
    assert f"delete the folder {path.parent}" in str(error.value)


def test_half_written_line_is_named_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / PUBLISHED
    publish_records(path, small_comparison())
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:100])
    with pytest.raises(UserError, match=rf"{PUBLISHED}, line 5: not valid JSON .*restore the file"):
        load_records(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct": (1, 2, 3)}, "3 success counts for 2 problems"),
        ({"correct": (1, 5)}, r"not in 0\.\.4"),
        ({"score": 0.9}, "success counts say 0.375"),
        ({"score": float("nan")}, "success counts say 0.375"),
    ],
)
def test_record_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    wrong = dataclasses.replace(evaluation([1, 2]), **changes)  # type: ignore[arg-type]
    write_runs(tmp_path, [run("opd", 0, evaluations=(wrong,))])
    with pytest.raises(UserError, match=message):
        load_records(tmp_path)


def test_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        find_runs(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        find_runs(tmp_path / "absent")


def test_two_records_of_one_run_are_refused(tmp_path: Path) -> None:
    (tmp_path / PUBLISHED).write_text((json.dumps(dataclasses.asdict(run("opd", 0))) + "\n") * 2)
    with pytest.raises(UserError, match="more than one record of opd seed 0"):
        find_runs(tmp_path)


def test_mixed_settings_are_refused_with_the_keys_that_differ() -> None:
    other = {**SETTING, "name": "renamed", "learning_rate": 0.002, "optimiser": {"beta": 0.95}}
    with pytest.raises(UserError) as error:
        check_comparable([run("opd", 0), run("tropd", 0, setting=other, training_hash="bbbb2222")])
    assert str(error.value) == (
        "Mixtures refused: opd seed 0 and tropd seed 0 differ in the setting "
        "(learning_rate: 0.001 against 0.002, optimiser.beta: 0.9 against 0.95); keep one kind."
    )
    with pytest.raises(UserError, match="differ in the training hash"):  # the student's weights, say
        check_comparable([run("opd", 0), run("tropd", 0, training_hash="bbbb2222")])


def drawn(record: RunRecord, engine: str) -> RunRecord:
    """The same run with samples that an engine has drawn."""
    return dataclasses.replace(
        record, evaluations=tuple(dataclasses.replace(e, engine=engine) for e in record.evaluations)
    )


def test_a_column_has_the_samples_of_one_engine() -> None:
    """Whoever trained: an older record's are its own engine's, and other columns may be another's."""
    by_hf, by_vllm = drawn(run("opd", 0, [1, 2]), "hf"), drawn(run("tropd", 0, [1, 2]), "vllm")
    with pytest.raises(UserError, match=r"samples of arithmetic were drawn by different engines, hf \(such as opd"):
        select_evaluations([by_hf, by_vllm])
    with pytest.raises(UserError, match="drawn by different engines"):
        select_evaluations([run("opd", 0, [1, 2]), by_vllm])
    older = run("opd", 0, [1, 2], engine="vllm")
    assert select_evaluations([older, by_vllm])["arithmetic"].keys() == {("opd", 0), ("tropd", 0)}
    other = run("eopd", 0, None, evaluations=(dataclasses.replace(evaluation([1, 2], task="other"), engine="vllm"),))
    assert set(select_evaluations([by_hf, other])) == {"arithmetic", "other"}


def test_a_table_has_one_teacher_engine() -> None:
    """Where records say so; what was evaluated only was trained by none."""
    by_hf = run("opd", 0, engine="vllm", teacher_engine="hf")
    by_vllm = run("opd", 1, engine="vllm", teacher_engine="vllm")
    with pytest.raises(UserError, match=r"opd seed 0 and opd seed 1 were scored by different engines \(hf, vllm\)"):
        check_comparable([by_hf, by_vllm])
    check_comparable([by_hf, run("opd", 1, engine="vllm")])  # an older record does not say
    check_comparable([by_hf, run("student", 1)])
    check_comparable([by_hf, run("some-model", 0, setting={"name": "evaluated", "chat_template": "0"})])


def test_who_worked_in_words() -> None:
    assert engines_of([run("opd", 0, [1]), run("student", 0, [1])]) == "hf"
    trained = drawn(run("opd", 0, [1], engine="vllm", teacher_engine="hf"), "server")
    assert engines_of([trained]) == "vllm (teacher hf, evaluated by server)"
    assert engines_of([run("opd", 0, [1], engine="vllm", teacher_engine="vllm")]) == "vllm"
    assert build_leaderboard([trained, drawn(run("student", 0, [1]), "server")], "make").engine == engines_of([trained])


def test_mixed_engines_and_mixed_defaults_are_refused() -> None:
    with pytest.raises(UserError, match=r"different engines \(hf, vllm\)"):
        check_comparable([run("opd", 0), run("opd", 1, engine="vllm")])
    with pytest.raises(UserError, match=r"knobs \(alpha: 1.0 against 2.0\)"):
        check_comparable([run("opd", 0), run("opd", 1, knobs={"alpha": 2.0})])
    check_comparable([run("opd", 0), run("opd", 1, knobs={"alpha": 2.0}, changed_knobs={"alpha": 2.0})])


def test_mixed_protocols_are_refused_unless_one_is_chosen() -> None:
    records = [
        run("opd", 0, evaluations=(evaluation([1, 2]), evaluation([3, 4], protocol="q7"))),
        run("tropd", 0, evaluations=(evaluation([0, 2]),)),
    ]
    with pytest.raises(UserError, match=r"arithmetic was evaluated under different protocols, p1 .* and q7 "):
        select_evaluations(records)
    assert {
        key: entry.correct for key, entry in select_evaluations(records, {"arithmetic": "p1"})["arithmetic"].items()
    } == {
        ("opd", 0): (1, 2),
        ("tropd", 0): (0, 2),
    }
    assert list(select_evaluations(records, {"arithmetic": "q"})["arithmetic"]) == [("opd", 0)]
    with pytest.raises(UserError, match="under the protocol zz; known: p1, q7"):
        select_evaluations(records, {"arithmetic": "zz"})
    with pytest.raises(UserError, match="no run was evaluated on; known: arithmetic"):
        select_evaluations(records, {"aime24": "p1"})


def test_mixed_numbers_of_problems_are_refused() -> None:
    with pytest.raises(UserError, match="different numbers of"):
        select_evaluations([run("opd", 0, [1, 2]), run("opd", 1, [1, 2, 3])])


def test_replicates_stand_in_one_table() -> None:
    """A seed has a student of its own, of one recipe; every method stands on it."""
    check_comparable([replicate(method, seed, f"s{seed}") for method in ("opd", "tropd") for seed in (1, 2, 3)])


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([replicate("opd", 2, "s2", recipe="r2")], "setting.student|the setting"),
        ([replicate("opd", 2, "s2", recipe=None)], "the setting"),
        ([replicate("opd", 2, "s2", teacher="sha256:u")], "the setting"),
        (
            [replicate("tropd", 1, "s2")],
            "opd seed 1 and tropd seed 1 were made from two students of seed 1 .sha256:s1 and sha256:s2",
        ),
    ],
)
def test_what_is_no_replicate_is_refused(others: list[RunRecord], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_comparable([replicate("opd", 1, "s1"), *others])


def test_one_path_with_two_contents_is_named() -> None:
    same = {**SETTING, "student": "student"}
    first = run("opd", 0, [1, 2], setting=same, provenance={"inputs": {"student": "sha256:a"}})
    second = run(
        "opd", 1, [1, 2], setting=same, provenance={"inputs": {"student": "sha256:b"}}, training_hash="bbbb2222"
    )
    with pytest.raises(UserError, match=r"differ in the content of student [(]student: sha256:a against sha256:b"):
        check_comparable([first, second])


def test_one_checkpoint_with_two_weights_is_refused() -> None:
    """Two rows of evaluated checkpoints, the same path, overwritten in between."""
    rows = [
        run(name, 0, [1, 2], knobs={"checkpoint": "model", "weights": weights})
        for name, weights in (("before", "sha256:a"), ("after", "sha256:b"))
    ]
    with pytest.raises(UserError, match="before seed 0 and after seed 0 were made from different weights of model"):
        check_comparable(rows)
    check_comparable([rows[0], dataclasses.replace(rows[1], seed=1, knobs={"checkpoint": "x", "weights": "sha256:b"})])

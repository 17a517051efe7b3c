"""The committed data files of the arithmetic task: `write_data` makes them again, byte for byte."""

from pathlib import Path

from harness.files import write_rows
from harness.tiny.language import reference_solution
from harness.tiny.problems import evaluation_rows, training_rows

EVALUATION_PROBLEMS = 256
TRAINING_PROMPTS = 4096


def write_data(root: Path) -> list[Path]:
    """Writes the test and development problems and the training prompts below `root`, the repository."""
    test, development, prompts = (
        root / "tasks/arithmetic/test.jsonl",
        root / "tasks/arithmetic/dev.jsonl",
        root / "harness/tiny/prompts.jsonl",
    )
    write_rows(test, evaluation_rows("test", "test", EVALUATION_PROBLEMS))
    write_rows(development, evaluation_rows("development", "dev", EVALUATION_PROBLEMS))
    write_rows(prompts, training_rows(TRAINING_PROMPTS, reference_solution))
    return [test, development, prompts]

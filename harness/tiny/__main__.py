"""`python -m harness.tiny`: builds the models of the tiny settings, as many side by side as `--workers` allows."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from harness.console.commands import Parser, exit_code_of
from harness.errors import UserError
from harness.tiny import CHECKPOINTS
from harness.tiny.recipes import RECIPES, Recipe

_REPOSITORY = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return exit_code_of(lambda: _run(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("tiny", __doc__)
    add = parser.add_argument
    add("--out", type=Path, default=CHECKPOINTS, help="folder for the models (default: the shipped ones)")
    add("--models", nargs="+", choices=list(RECIPES), metavar="NAME", help="which of them: " + ", ".join(RECIPES))
    add("--student-seed", type=int, default=0, help="K > 0: the students' K-th replicate, into OUT/student_seedK")
    add("--fresh", action="store_true", help="build again what is there already")
    add("--workers", type=int, default=2, help="models trained side by side, one thread each (default: 2)")
    add("--steps-scale", type=float, default=1.0, help="multiplies all training steps, to try things out (default: 1)")
    add("--data", action="store_true", help="write the problem files instead, the same bytes every time")
    return parser.parse_args(arguments)


def chosen_recipes(options: argparse.Namespace) -> list[Recipe]:
    """The recipes asked for; a replicate consists of students only, since the teacher is the same for all of them."""
    names = options.models or [name for name, r in RECIPES.items() if options.student_seed == 0 or r.is_student]
    recipes = [RECIPES[name] for name in names]
    if options.student_seed and not all(recipe.is_student for recipe in recipes):
        raise UserError("--student-seed makes replicates of students: name no teacher in --models.")
    if options.student_seed < 0 or options.workers < 1 or not options.steps_scale > 0:
        raise UserError("--student-seed must be 0 or more, --workers 1 or more, and --steps-scale above 0.")
    return recipes if options.steps_scale == 1 else [recipe.scaled(options.steps_scale) for recipe in recipes]


def make_writable(root: Path) -> None:
    """Finds out before the training, not after it, that the models cannot be saved."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(f"--out {root} cannot be written to ({error}): name a folder that can.") from error


def _run(options: argparse.Namespace) -> int:
    from harness.tiny.build import is_complete
    from harness.tiny.data import write_data
    from harness.tiny.parallel import build_all

    if options.data:
        print("\n".join(str(path) for path in write_data(_REPOSITORY)))
        return 0
    recipes = chosen_recipes(options)
    root = options.out / f"student_seed{options.student_seed}" if options.student_seed else options.out
    missing = [r for r in recipes if options.fresh or not is_complete(root / r.name, r)]
    make_writable(root)
    for recipe in recipes:
        if recipe not in missing:
            print(f"{root / recipe.name}: kept (--fresh builds it again)")
    if missing:
        build_all(missing, root, options.student_seed, options.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())

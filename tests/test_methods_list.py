"""docs/methods.md is what the docstrings say."""

from harness.methods import main
from harness.paths import ROOT


def test_the_committed_list_is_current(capsys) -> None:
    main()
    printed = capsys.readouterr().out.strip()
    assert printed in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")

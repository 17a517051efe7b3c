"""A table by hand."""

from harness.results.markdown import table


def test_a_table_by_hand() -> None:
    """An empty cell, a bar in a cell, and the last letter for the columns that have none."""
    assert table(["a", "", "c"], [["1", "x|y", ""]], "lr") == ("| a | | c |\n| --- | ---: | ---: |\n| 1 | x\\|y | |")
    assert table(["a"], [], "lr") == "| a |\n| --- |"

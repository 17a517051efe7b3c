"""From the records of runs to the table that compares them.

record       RunRecord: one run, as one small JSON file
collect      finds the records of a comparison, refuses mixtures, publishes
statistics   intervals and paired differences from scores [seeds, problems]
leaderboard  the rows of a table
render       the table as Markdown, JSON and in the terminal
expectations what continuous integration asserts about a comparison
"""

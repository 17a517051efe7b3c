"""From the records of runs to the table that compares them.

record       RunRecord: one run, as one small JSON file
collect      finds the records of a comparison, refuses mixtures, publishes
statistics   intervals and paired differences from scores [seeds, problems]
leaderboard  the rows of a table
render       the table as Markdown, JSON and in the terminal
expectations what continuous integration asserts about a comparison
side_by_side two runs or folders in the terminal
claims       what somebody says of two methods, against finished comparisons
regimes      which method wins where, over many comparisons
tuning       learning rates: scores of every method at every rate
own_rates    a table in which every method has its own best rate
"""

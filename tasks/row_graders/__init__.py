"""What `python -m harness.grade task=NAME` can grade: one module a task, found by its name.

A module has `FIELDS`, one line that says what a row holds; `GRADES_LIKE`, the `process_results` of the benchmarks whose
names stand for it too; `OPTIONS`, the names of its own options with their defaults; and `make_grader(options)`, which
checks the options and what the grader needs (a UserError if it is missing) and returns a function from a row to the
fields that the output row gets. A row that cannot be graded is a ValueError. `WORKERS`, if it is there, is how many
rows are graded at a time, in threads.
"""

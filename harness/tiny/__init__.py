"""The embedded experiment: an arithmetic task, a tokenizer, two teachers and three students.

`python -m harness.tiny` makes all of it from nothing; the models that it makes are shipped in `checkpoints/`.
"""

from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"

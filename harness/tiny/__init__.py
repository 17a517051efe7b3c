"""The embedded experiment: an arithmetic task, a tokenizer, two teachers and three students, all made from nothing by `python -m harness.tiny`."""

from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"
PROMPTS = Path(__file__).parent / "prompts.jsonl"

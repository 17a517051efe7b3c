"""The prompt of the multiple-choice tasks: that of OpenAI's simple-evals."""

from collections.abc import Mapping
from typing import Any

from tasks.choice_answer import LETTERS

INSTRUCTION = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering."
)


def prompt(doc: Mapping[str, Any]) -> str:
    """`doc_to_text`: the instruction, the question and its four options."""
    options = "\n".join(f"{letter}) {choice}" for letter, choice in zip(LETTERS, doc["choices"], strict=True))
    return f"{INSTRUCTION}\n\n{doc['question']}\n\n{options}"

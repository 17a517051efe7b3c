"""How the tiny models read and write: the vocabulary, the tokenizer, and two styles of solution.

Style A restates the operands of every step in one of several wordings (`Then 6 + 5 becomes 1 .`), so a model that
writes it has tokens with real entropy. Style B is terse (`, add 5 : 1`). A model can be taught facts that are wrong
(`wrong_facts`), and slips at random places (`slip`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from random import Random
from typing import TYPE_CHECKING

from harness.tiny.problems import MODULUS, OPERATION_WORDS, Fact, Problem, compute, operands_of, pick

if TYPE_CHECKING:  # the words are looked at without it too
    from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 64
MAX_POSITIONS = 2048
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
PAD, EOS, BOS, UNK = range(4)
WORDS = (
    *SPECIAL,
    *"0123456789+-*=.,:;?",
    *("\\boxed{", "}"),
    *("Start", "with", "add", "subtract", "times", "What", "is", "the", "result", "mod"),
    *("Solution", "Work", "Steps", "Then", "Now", "Next", "gives", "becomes", "So", "Therefore", "Hence"),
    *("quick", "then", "Answer", "total", "thus"),
)
WORD_IDS = {word: index for index, word in enumerate(WORDS)}

# The conversation is its words in order; an answer of the assistant ends with <eos>. No role marks are needed: a
# problem is always followed by its solution.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %} {{ eos_token }}{% endif %}{% endfor %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word between blanks. The vocabulary is padded to the model's size: all its ids can be decoded."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    reserved = [f"<reserved_{index}>" for index in range(len(WORDS), VOCAB_SIZE)]
    vocabulary = {word: index for index, word in enumerate([*WORDS, *reserved])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


@cache
def wrong_facts(share: float) -> Mapping[Fact, int]:
    """The facts that are taught with a wrong result; a larger share contains a smaller one.

    Fixed, not drawn anew: a model that is taught a wrong fact consistently becomes confident of it.
    """

    def digest(fact: Fact) -> int:
        return int(hashlib.md5(repr(fact).encode(), usedforsecurity=False).hexdigest(), 16)

    steps = [(sign, operand) for sign in OPERATION_WORDS for operand in operands_of(sign)]
    facts = [(value, sign, operand) for value in range(MODULUS) for sign, operand in steps]
    chosen = sorted(facts, key=digest)[: round(share * len(facts))]
    return {fact: (compute(*fact) + 1 + digest(fact) % (MODULUS - 1)) % MODULUS for fact in chosen}


def write_solution(
    problem: Problem, style: str, rng: Random, wrong: Mapping[Fact, int] | None = None, slip: float = 0.0
) -> tuple[list[str], list[bool]]:
    """The words of a solution in style "A" or "B", and for each whether it is a slip: a random digit for a result.

    A solution goes on from its own results, right or wrong, as a model does.
    """
    words = [pick(rng, ("Solution", "Work", "Steps")), ":"] if style == "A" else ["quick", ":", str(problem.start)]
    slips = [False] * len(words)
    value = problem.start
    for sign, operand in problem.operations:
        slipped = rng.random() < slip
        fact = (value, sign, operand)
        result = int(rng.random() * MODULUS) if slipped else (wrong or {}).get(fact, compute(*fact))
        if style == "A":
            opener, verb = pick(rng, ("Then", "Now", "Next")), pick(rng, ("=", "gives", "becomes"))
            step = [opener, str(value), sign, str(operand), verb, str(result), "."]
            slips += [False] * 5 + [slipped, False]
        else:
            step = [pick(rng, (",", "then", ";")), OPERATION_WORDS[sign], str(operand), ":", str(result)]
            slips += [False] * 4 + [slipped]
        words += step
        value = result
    closer = pick(rng, ("So", "Therefore", "Hence") if style == "A" else ("Answer", "total", "thus"))
    words += [closer, "\\boxed{", str(value), "}", "."]
    return words, slips + [False] * 5


def reference_solution(problem: Problem, rng: Random) -> str:
    """A correct solution in the terse style, as the data set's own response."""
    return " ".join(write_solution(problem, "B", rng)[0])

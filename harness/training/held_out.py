"""The prompts that a run's distance to its teacher is measured on (harness.training.distance)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.config.distance import DistanceConfig
from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.models.template import render
from harness.seeds import generator_of
from harness.training.prompts import Prompt, prompt_order, prompts_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNREACHED, TRAINED_ON = "prompts that the run does not reach", "training prompts, not held out"


@dataclass(frozen=True)
class HeldOut:
    """Prompts, and where they come from."""

    prompts: tuple[Prompt, ...]
    source: str  # in words
    identity: str  # of what they are chosen from: the same for all seeds

    def digest(self) -> str:
        """sha256 of the prompts' tokens."""
        return hashlib.sha256(json.dumps([prompt.ids for prompt in self.prompts]).encode()).hexdigest()


def held_out_prompts(config: RunConfig, asked: DistanceConfig, tokenizer: PreTrainedTokenizerBase) -> HeldOut:
    """`asked.prompts` prompts, or as many as there are: the first problems of a task where one is named.

    Without a task they are the prompts that would come next in the run's own order (a seed has its own); where the
    budget leaves too few of them, they are training prompts, the same for all seeds, and the source says so.
    """
    if asked.task is not None:
        return _of_task(config, asked.task, asked.prompts, tokenizer)
    setting = config.setting
    prompts = prompts_of(setting, tokenizer)
    reached = setting.steps * setting.prompts_per_step
    if reached + asked.prompts <= len(prompts):
        source, chosen = UNREACHED, prompt_order(len(prompts), config.seed, reached + asked.prompts)[reached:]
    else:
        source = TRAINED_ON
        chosen = generator_of("distance_prompts").permutation(len(prompts))[: asked.prompts].tolist()
    return HeldOut(tuple(prompts[i] for i in chosen), source, setting.identities()["prompts"])


def _of_task(config: RunConfig, name: str, count: int, tokenizer: PreTrainedTokenizerBase) -> HeldOut:
    """The first problems of a task, rendered as training prompts are. UserError for one that is too long for them."""
    from harness.evaluation.lm import item_id
    from harness.evaluation.loading import TaskOptions, load_tasks

    setting = config.setting
    loaded = load_tasks([name], tokenizer, TaskOptions(data_dir=config.evaluation.data_dir))[name]
    documents = list(loaded.task.eval_docs)[:: loaded.documents_per_problem][:count]
    questions = [[{"role": "user", "content": str(loaded.task.doc_to_text(document))}] for document in documents]
    texts = [render(tokenizer, question, setting.chat_template_kwargs or {}) for question in questions]
    prompts = []
    for number, (document, ids) in enumerate(
        zip(documents, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True)
    ):
        prompts.append(Prompt(item_id(document, number), tuple(ids)))
        if len(ids) > setting.max_prompt_tokens:
            raise UserError(
                f"evaluation.distance.task={name}: problem {prompts[-1].prompt_id!r} has {len(ids)} tokens, "
                f"setting.max_prompt_tokens allows {setting.max_prompt_tokens}; name another task, or none."
            )
    digest = hashlib.sha256(repr([prompt.ids for prompt in prompts]).encode()).hexdigest()
    return HeldOut(tuple(prompts), f"problems of the task {name}", f"{name} {digest}")

"""The model as lm-eval sees it: a rollout engine and a tokenizer.

lm-eval's own model classes drop the finish reason and the token counts, shorten prompts that do not fit, and cannot
take an engine that runs already. This one keeps a record of every sample, never touches a prompt, and draws every
sample from the random stream at its own coordinates.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from tqdm import tqdm

from harness.config.decodings import chosen_by
from harness.errors import UserError
from harness.evaluation.loading import DEFAULT_MAX_GEN_TOKS, GENERATION_KEYS
from harness.evaluation.model import Drawing, EvaluatedModel
from harness.models.template import render
from harness.rollout import Progress, RolloutRequest, Sampling
from harness.seeds import seed_of
from harness.types import Rollout

THINK_OPEN = "<think>"


@dataclass(frozen=True)
class Sample:
    """What is known of one generated sample beyond its text."""

    tokens: int  # written by the model, the end token included
    stop_reason: str  # "stop" | "length"


@dataclass(frozen=True)
class _Planned:
    """One sample to be drawn: where it stands among the requests, and what to ask of the engine."""

    position: int
    key: tuple[str, int]  # task name, document
    request: RolloutRequest
    limit: int  # tokens that may be written
    until: tuple[str, ...]
    opens_thinking: bool  # the prompt ends inside the thinking


class EngineLM(LM):
    """Answers lm-eval's generation requests with a RolloutEngine."""

    def __init__(self, model: EvaluatedModel, drawing: Drawing) -> None:
        super().__init__()
        self._model, self._drawing = model, drawing
        self._quiet = drawing.quiet or not sys.stderr.isatty()
        # by (task, document), in the order of the repeats
        self.samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)

    @property
    def tokenizer_name(self) -> str:
        """Names lm-eval's cache of requests, which the harness does not use."""
        return str(self._model.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Renders the conversation as the model's own prompt text."""
        ending = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        return render(self._model.tokenizer, chat_history, ending)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Draws one sample for every entry of `requests`; an Instance that occurs K times gets K different ones."""
        texts = [""] * len(requests)
        for task, batches in self._plan(requests).items():
            with self._bar(task, batches, disable_tqdm) as bar:
                for sampling, planned in batches.items():
                    for plan, rollout in zip(planned, self._rollouts(planned, sampling, bar), strict=True):
                        texts[plan.position], sample = self._read(plan, rollout)
                        self.samples[plan.key].append(sample)
        return texts

    def _rollouts(self, planned: Sequence[_Planned], sampling: Sampling, bar: tqdm) -> list[Rollout]:
        """The completion of every plan: from the journal, or else from the engine."""
        own = [dataclasses.replace(sampling, max_new_tokens=plan.limit) for plan in planned]
        found = {}
        if self._drawing.journal is not None:
            stored = [
                self._drawing.journal.find(plan.request, limited) for plan, limited in zip(planned, own, strict=True)
            ]
            found = {index: rollout for index, rollout in enumerate(stored) if rollout is not None}
            bar.update(sum(planned[index].limit for index in found))
        wanted = [index for index in range(len(planned)) if index not in found]

        def finished(position: int, rollout: Rollout) -> None:
            if self._drawing.journal is not None:
                self._drawing.journal.add(planned[wanted[position]].request, own[wanted[position]], rollout)

        if wanted:
            # one call for all, so that they share batches: the engine's limit is the longest of theirs
            longest = dataclasses.replace(sampling, max_new_tokens=max(planned[index].limit for index in wanted))
            requests = [planned[index].request for index in wanted]
            drawn = self._model.engine.generate(requests, longest, self._reporter(bar), finished)
            found |= dict(zip(wanted, drawn, strict=True))
        return [found[index] for index in range(len(planned))]

    def _plan(self, requests: Sequence[Instance]) -> dict[str, dict[Sampling, list[_Planned]]]:
        """Sorts the requests by task and by how they are sampled; the engine takes one Sampling a call."""
        plan: dict[str, dict[Sampling, list[_Planned]]] = defaultdict(lambda: defaultdict(list))
        prompts: dict[str, tuple[int, ...]] = {}
        drawn: Counter[tuple[str, int]] = Counter()
        for position, instance in enumerate(requests):
            prompt, generation_kwargs = instance.args
            key = (str(instance.task_name), int(instance.doc_id or 0))
            item = f"{key[0]}/{item_id(instance.doc, key[1])}"
            if prompt not in prompts:
                prompts[prompt] = self._encode(prompt)
            sampling = self._sampling(generation_kwargs, item)
            limit = min(sampling.max_new_tokens, self._room(len(prompts[prompt]), item))
            if len(prompts[prompt]) + limit > self._model.opened_for:
                raise UserError(
                    f"The prompt of {item} has {len(prompts[prompt])} tokens and its answer up to {limit}: more than "
                    f"the {self._model.opened_for} positions that the engine was opened for; evaluate this task with "
                    "engine=hf."
                )
            planned = _Planned(
                position,
                key,
                RolloutRequest(
                    prompt_id=item,
                    prompt_ids=prompts[prompt],
                    seed=seed_of("evaluation", self._drawing.run_seed, *key, drawn[key]),
                    sample_index=repeat_of(instance.doc, drawn[key]),
                ),
                limit=limit,
                until=tuple(_as_list(generation_kwargs.get("until"))),
                opens_thinking=prompt.rstrip().endswith(THINK_OPEN),
            )
            drawn[key] += 1
            plan[key[0]][sampling].append(planned)
        return plan

    def _encode(self, prompt: str) -> tuple[int, ...]:
        """Ids of the prompt. A chat template writes its own special tokens: none is added to what it rendered."""
        return tuple(
            self._model.tokenizer.encode(prompt, add_special_tokens=self._model.tokenizer.chat_template is None)
        )

    def _room(self, prompt_tokens: int, item: str) -> int:
        """Positions that the prompt leaves for the completion."""
        room = self._model.max_length - prompt_tokens
        if room < 1:
            raise UserError(
                f"The prompt of {item} has {prompt_tokens} tokens and leaves no room in the model's "
                f"{self._model.max_length} positions; prompts are never shortened, so evaluate this task with a model "
                "of a longer context."
            )
        return room

    def _sampling(self, kwargs: Mapping[str, Any], item: str) -> Sampling:
        """Turns lm-eval's generation kwargs into a Sampling."""
        if unknown := set(kwargs) - GENERATION_KEYS:
            raise UserError(
                f"Generation settings {sorted(unknown)} of {item} are not known; known: {sorted(GENERATION_KEYS)}."
            )
        temperature, top_p, top_k = chosen_by(kwargs)
        return Sampling(
            max_new_tokens=int(kwargs.get("max_gen_toks", DEFAULT_MAX_GEN_TOKS)),
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            stop_ids=self._model.stop_ids,
        )

    def _read(self, plan: _Planned, rollout: Rollout) -> tuple[str, Sample]:
        """The text of a sample, and what to remember of it.

        Thinking that the prompt opened is opened in the text too, so that the grader can tell whether it was finished.
        """
        ids = list(rollout.completion_ids[: plan.limit])
        tokens = len(ids)
        stop_reason: str = rollout.stop_reason if tokens == len(rollout.completion_ids) else "length"
        if ids and ids[-1] in self._model.stop_ids:
            ids = ids[:-1]
        text = str(self._model.tokenizer.decode(ids, skip_special_tokens=False))
        cuts = [at for stop in plan.until if stop and (at := text.find(stop)) >= 0]
        if cuts:
            text, stop_reason = text[: min(cuts)], "stop"
        if plan.opens_thinking:
            text = f"{THINK_OPEN}\n{text}"
        return text, Sample(tokens=tokens, stop_reason=stop_reason)

    def _bar(self, task: str, batches: Mapping[Sampling, Sequence[_Planned]], disabled: bool) -> tqdm:
        """A bar over tokens. Its end is the most that can be written, so that the time left is an upper bound."""
        most = sum(plan.limit for planned in batches.values() for plan in planned)
        return tqdm(
            total=most,
            desc=task,
            unit=" tok",
            unit_scale=True,
            disable=self._quiet or disabled,
            leave=False,
            bar_format="{desc}: {n_fmt} of at most {total_fmt} tokens |{bar}| {rate_fmt}, at most {remaining} left",
        )

    def _reporter(self, bar: tqdm) -> Progress:
        def report(tokens: int) -> None:
            bar.update(tokens)
            if self._drawing.progress is not None:
                self._drawing.progress(tokens)

        return report

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not offered: a rollout engine samples."""
        raise UserError("This task scores given texts (loglikelihood); only tasks that generate can be evaluated.")

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Not offered: a rollout engine samples."""
        raise UserError("This task scores given texts (loglikelihood); only tasks that generate can be evaluated.")


def item_id(doc: Mapping[str, Any], document: int) -> str:
    """The task's own id of a problem: its field `id`, otherwise its number."""
    return str(doc.get("id", document))


def repeat_of(doc: Mapping[str, Any], index: int) -> int:
    """Which repeat of its problem a sample is: the document's field `repeat`, if it has one, otherwise its number."""
    return int(doc.get("repeat", index))


def _as_list(until: str | Sequence[str] | None) -> list[str]:
    return [until] if isinstance(until, str) else list(until or [])

"""Teaches one tiny model by its recipe and measures it. Every draw comes from a generator at named coordinates.

    tiny_init       (shape's width, replicate)              the initial weights
    tiny_data       (shape's width, phase, replicate)       the problems and wordings that are taught
    tiny_accuracy   (recipe, replicate)                     the samples that the measured accuracy rests on

Models of one shape share the first two, so that the students of one replicate differ by what they are taught and by
nothing else.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3ForCausalLM

from harness.models.backbone import cache_name
from harness.seeds import seed_of
from harness.tiny.language import BOS, EOS, PAD, SPECIAL, WORD_IDS, WORDS, write_solution, wrong_facts
from harness.tiny.problems import MAX_OPERATIONS, MIN_OPERATIONS, Problem, draw_problem, pick
from harness.tiny.recipes import Phase, Recipe, Shape

_WARMUP_STEPS = 100
_FINAL_RATE = 0.05  # of the peak
_RESIDUAL_GAIN = 0.3  # projections into the residual stream start small
_EMBEDDING_STD = 0.1
_MAX_NEW_TOKENS = 60  # the longest solution has 43
_STEP_TOKENS = 5  # a digit rests on the five tokens before it, in both styles
_DIGITS = frozenset(WORD_IDS[digit] for digit in "0123456789")
IGNORE = -100  # cross_entropy's own mark for targets without loss


def initial_model(shape: Shape, replicate: int) -> Qwen3ForCausalLM:
    """Fresh weights with fan-in scaling: transformers' own 0.02 is small at this width."""
    with torch.random.fork_rng(devices=[]):
        model = Qwen3ForCausalLM(shape.config()).float()
    generator = torch.Generator().manual_seed(seed_of("tiny_init", shape.hidden, replicate))
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            nn.init.ones_(weight)
            continue
        std = _EMBEDDING_STD if "embed_tokens" in name else weight.shape[1] ** -0.5
        if "o_proj" in name or "down_proj" in name:
            std *= _RESIDUAL_GAIN
        nn.init.normal_(weight, std=std, generator=generator)
    return model


def prompt_ids(problem: Problem) -> list[int]:
    """What the chat template makes of the problem (a test says so), without the template's cost."""
    return [BOS, *(WORD_IDS[word] for word in problem.text.split())]


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def training_batch(phase: Phase, batch_size: int, rng: Random) -> tuple[Tensor, Tensor]:
    """Inputs and targets [B, T] of one step. All its problems are equally long, so there is little padding."""
    operations = pick(rng, range(MIN_OPERATIONS, MAX_OPERATIONS + 1))
    wrong = wrong_facts(phase.wrong_facts)
    inputs, targets = [], []
    for _ in range(batch_size):
        problem = draw_problem(rng, "train", operations)
        style = "A" if rng.random() < phase.style_a else "B"
        words, slips = write_solution(problem, style, rng, wrong, slip=phase.slips)
        prompt, solution = prompt_ids(problem), [WORD_IDS[word] for word in words]
        learned = [
            IGNORE if slip and not phase.learn_slips else token for token, slip in zip(solution, slips, strict=True)
        ]
        if phase.corruption:
            solution, learned = corrupted(solution, learned, phase.corruption, rng)
        inputs.append([*prompt, *solution])
        targets.append([*[IGNORE] * (len(prompt) - 1), *learned, EOS])
    return _padded(inputs, PAD), _padded(targets, IGNORE)


def corrupted(solution: list[int], learned: list[int], share: float, rng: Random) -> tuple[list[int], list[int]]:
    """The solution with random words in it, and its targets without the digits that rested on the replaced ones.

    The model learns to find back into the form of a solution; it must not learn to doubt the digits that it reads.
    """
    words = range(len(SPECIAL), len(WORDS))
    replaced = [rng.random() < share for _ in solution]
    inputs = [pick(rng, words) if new else token for token, new in zip(solution, replaced, strict=True)]
    targets = [
        IGNORE if token in _DIGITS and any(replaced[max(0, i - _STEP_TOKENS) : i]) else token
        for i, token in enumerate(learned)
    ]
    return inputs, targets


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up times a cosine to 5 %."""
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    return warmup * (_FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def teach(model: Qwen3ForCausalLM, phase: Phase, batch_size: int, rng: Random, advance: Callable[[int], None]) -> None:
    """One phase of supervised training; `advance` is called with the steps done since its last call."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=phase.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    for step in range(phase.steps):
        for group in optimiser.param_groups:
            group["lr"] = phase.learning_rate * rate_factor(step, phase.steps)
        inputs, targets = training_batch(phase, batch_size, rng)
        hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
        learned = targets != IGNORE  # right padding and causal attention: no mask is needed
        loss = F.cross_entropy(model.lm_head(hidden[learned]), targets[learned])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        advance(1)


def train(recipe: Recipe, replicate: int, advance: Callable[[int], None] = lambda steps: None) -> Qwen3ForCausalLM:
    """The whole recipe from fresh weights."""
    model = initial_model(recipe.shape, replicate)
    for index, phase in enumerate(recipe.phases):
        rng = Random(seed_of("tiny_data", recipe.shape.hidden, index, replicate))
        teach(model, phase, recipe.batch_size, rng, advance=advance)
    return model


@torch.inference_mode()
def sample_solutions(model: Qwen3ForCausalLM, prompts: Tensor, generator: torch.Generator) -> list[str]:
    """One solution at temperature 1 for each of the prompts [B, T], which are equally long."""
    tokens, cache, written = prompts, None, []
    name = cache_name(model)
    finished = torch.zeros(len(prompts), dtype=torch.bool)
    for _ in range(_MAX_NEW_TOKENS):
        output = model(input_ids=tokens, use_cache=True, logits_to_keep=1, **{name: cache})
        cache = getattr(output, name)
        drawn = torch.multinomial(output.logits[:, -1].float().softmax(-1), 1, generator=generator)
        tokens = drawn.masked_fill(finished[:, None], PAD)
        written.append(tokens)
        finished |= drawn[:, 0] == EOS
        if finished.all():
            break
    rows = torch.cat(written, 1).tolist()
    return [" ".join(WORDS[i] if i < len(WORDS) else "?" for i in row if i not in (PAD, EOS)) for row in rows]


def is_correct(problem: Problem, solution: str) -> bool:
    """Whether the last box holds the right digit."""
    boxes = re.findall(r"\\boxed\{ (.*?) \}", solution)
    return bool(boxes) and boxes[-1] == str(problem.answer)


def measure_accuracy(
    model: Qwen3ForCausalLM, problems: Sequence[Problem], samples: int, generator: torch.Generator
) -> float:
    """The share of right answers over `samples` sampled solutions of every problem."""
    by_length: defaultdict[int, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_length[len(problem.operations)] += [problem] * samples
    right = 0
    for _, group in sorted(by_length.items()):
        solutions = sample_solutions(model, torch.tensor([prompt_ids(p) for p in group]), generator)
        right += sum(is_correct(p, s) for p, s in zip(group, solutions, strict=True))
    return right / (samples * len(problems))

"""The sampler beside `model.generate` on the default workload: 64 ragged prompts, with and without teacher prefixes,
temperature 1.

    python tests/measure/sampler.py [--repeats 7]

Prints tokens per CPU-second (one thread, alternating, median), and where the sampler's time goes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from transformers import PreTrainedModel

from harness.models.loading import load_model, load_tokenizer, stop_ids_of
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.hf import HFEngine
from harness.seeds import generator_of
from harness.training.prompts import load_prompts

MAX_NEW_TOKENS = 60


def requests(model: PreTrainedModel, count: int, prefixes: bool, stop_ids: tuple[int, ...]) -> list[RolloutRequest]:
    """The step's prompts; with prefixes, a uniform share of an earlier rollout is spliced in, as guidance does."""
    tokenizer = load_tokenizer("harness/tiny/checkpoints/student")
    prompts = load_prompts("harness/tiny/prompts.jsonl", tokenizer, split="train", max_tokens=64, template_kwargs={})[
        :count
    ]
    plain = [RolloutRequest(p.prompt_id, p.ids, seed=i) for i, p in enumerate(prompts)]
    if not prefixes:
        return plain
    written = HFEngine(model, 64).generate(plain, Sampling(MAX_NEW_TOKENS, stop_ids=stop_ids))
    shares = generator_of("benchmark").random(count)
    return [
        RolloutRequest(
            r.prompt_id, r.prompt_ids, seed=i, prefix_ids=r.completion_ids[: int(share * (len(r.completion_ids) - 1))]
        )
        for i, (r, share) in enumerate(zip(written, shares, strict=True))
    ]


def with_generate(
    model: PreTrainedModel, asked: list[RolloutRequest], stop_ids: tuple[int, ...], max_new_tokens: int = MAX_NEW_TOKENS
) -> int:
    """The same work by transformers: left padding, log-probs from the returned scores; the number of tokens written."""
    sequences = [[*r.prompt_ids, *r.prefix_ids] for r in asked]
    width = max(map(len, sequences))
    ids = torch.tensor([[0] * (width - len(s)) + s for s in sequences])
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences])
    out = model.generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        top_k=0,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_ids),
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    written = out.sequences[:, width:]
    logprobs = torch.stack(out.logits, dim=1).log_softmax(-1).gather(-1, written[..., None])[..., 0]
    ended = torch.isin(written, torch.tensor(stop_ids)).long().cumsum(1)
    own = (ended - torch.isin(written, torch.tensor(stop_ids)).long()) == 0
    assert torch.isfinite(logprobs[own]).all()
    return int(own.sum())


def with_engine(model: PreTrainedModel, asked: list[RolloutRequest], stop_ids: tuple[int, ...]) -> int:
    """The same work by the harness."""
    rollouts = HFEngine(model, 64).generate(asked, Sampling(MAX_NEW_TOKENS, stop_ids=stop_ids))
    return sum(len(r.completion_ids) - r.prefix_len for r in rollouts)


def rate(work: Callable[[], int]) -> float:
    """Tokens per CPU-second of one repetition."""
    start = time.process_time()
    return work() / (time.process_time() - start)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = load_model("harness/tiny/checkpoints/student")
    stop_ids = stop_ids_of(model, load_tokenizer("harness/tiny/checkpoints/student"))
    print(f"{'workload':<34}{'generate':>12}{'harness':>12}{'ratio':>8}   tokens per CPU-second, median of {repeats}")
    for count, prefixes in ((64, False), (64, True), (256, False), (256, True)):
        asked = requests(model, count, prefixes, stop_ids)
        rates: dict[str, list[float]] = {"generate": [], "engine": []}
        for _ in range(repeats + 1):
            rates["generate"].append(rate(lambda asked=asked: with_generate(model, asked, stop_ids)))  # type: ignore[misc]
            rates["engine"].append(rate(lambda asked=asked: with_engine(model, asked, stop_ids)))  # type: ignore[misc]
        a, b = (statistics.median(values[1:]) for values in rates.values())
        name = f"{count} prompts{', teacher prefixes' if prefixes else ''}"
        print(f"{name:<34}{a:>12,.0f}{b:>12,.0f}{b / a:>8.2f}")
    profile(model, stop_ids)


def profile(model: PreTrainedModel, stop_ids: tuple[int, ...]) -> None:
    """Where a batch of 64 spends its time."""
    asked = requests(model, 64, False, stop_ids)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        start = time.process_time()
        with_engine(model, asked, stop_ids)
        total = time.process_time() - start
    events = profiler.key_averages()
    named = {"matrix products": "aten::mm", "attention": "aten::_scaled_dot_product", "cache growth": "aten::cat"}
    inside = 0.0
    for label, prefix in named.items():
        seconds = sum(e.self_cpu_time_total for e in events if e.key.startswith(prefix)) / 1e6
        inside += seconds
        print(f"{label:<34}{100 * seconds / total:>11.0f} %")
    print(f"{'small operations and Python':<34}{100 * (total - inside) / total:>11.0f} %   (under the profiler)")


if __name__ == "__main__":
    main()

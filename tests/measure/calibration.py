"""Whether an engine samples what its model says: `python tests/measure/calibration.py hf` (or vllm, in .venv-vllm).

Some 210,000 tokens of the shipped student's own completions. Under a sampler that is right, the mean of -log π(x) is
the mean entropy, and a token of probability p below 1 % is drawn with probability p. Both are given as z-scores.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

from harness.config.sweep import planned_runs
from harness.engines.backends import Source
from harness.engines.opening import open_engine
from harness.models.loading import load_model, load_tokenizer, stop_ids_of
from harness.rollout import RolloutRequest, Sampling
from harness.scoring import Completion, ScoreRequest
from harness.scoring.hf import HFScorer
from harness.seeds import seed_of
from harness.training.prompts import prompts_of

PROMPTS, SAMPLES, VOCAB, RARE = 3000, 2, 64, 0.01
BATCH = 500


def main(engine: str) -> None:
    """Prints one line."""
    (run,) = planned_runs(["hydra.mode=RUN", "method=opd", f"engine={engine}"])
    name = run.setting.student
    model, tokenizer = load_model(name, None, "float32"), load_tokenizer(name)
    prompts = prompts_of(run.setting, tokenizer)[:PROMPTS]
    requests = [
        RolloutRequest(p.prompt_id, p.ids, seed_of("calibration", slot, sample), sample)
        for sample in range(SAMPLES)
        for slot, p in enumerate(prompts)
    ]
    source = Source(name, None, "float32")
    with (
        tempfile.TemporaryDirectory() as folder,
        open_engine(run.engine, source, VOCAB, Path(folder), longest=128, role="student", model=model) as opened,
    ):
        assert opened.weights is not None  # a trainer's model was given
        opened.weights.push(0)
        rollouts = opened.engine.generate(requests, Sampling(60, stop_ids=stop_ids_of(model, tokenizer)))
    scorer = HFScorer(model, VOCAB)
    excess = variance = expected = 0.0
    tokens = rare = 0
    for start in range(0, len(rollouts), BATCH):
        written = [Completion(r.prompt_ids, r.completion_ids) for r in rollouts[start : start + BATCH]]
        signal = scorer.score(written, ScoreRequest(top_k=VOCAB)).signal
        assert signal.topk_logprobs is not None  # asked for: the whole vocabulary
        for row, completion in enumerate(written):
            length = len(completion.completion_ids)
            drawn, whole = signal.logprobs[row, :length].double(), signal.topk_logprobs[row, :length].double()
            entropy = -(whole.exp() * whole).sum(-1)
            excess += float((-drawn - entropy).sum())
            variance += float(((whole.exp() * whole**2).sum(-1) - entropy**2).sum())
            tokens, rare = tokens + length, rare + int((drawn < math.log(RARE)).sum())
            expected += float((whole.exp() * (whole < math.log(RARE))).sum())
    surprise, tail = excess / math.sqrt(variance), (rare - expected) / math.sqrt(expected)
    print(f"{engine}: {tokens:,} tokens; mean of -log π against the entropy: z = {surprise:.1f};", end=" ")
    print(f"tokens below {RARE:.0%}: {rare}, expected {expected:.0f}, z = {tail:.1f}")


if __name__ == "__main__":
    main(sys.argv[1])

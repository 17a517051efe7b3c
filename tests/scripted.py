"""The fake engine: it "writes" stored completions, in place of a model."""

from collections.abc import Callable, Mapping, Sequence

from harness.rollout import Finished, Progress, RolloutRequest, Sampling
from harness.types import Rollout

Completion = str | Sequence[int]
Logprobs = Callable[[RolloutRequest, tuple[int, ...]], Sequence[float]]


class ScriptedEngine:
    """A `RolloutEngine` whose model is a table or a function.

    A completion is what the model writes after the request's prefix. A text is encoded with `tokenizer`, without
    special tokens; ids are taken as they are. Like a model, the engine stops after the first stop id and at
    max_new_tokens; where a completion runs out it writes the end token.
    """

    def __init__(
        self,
        completions: Mapping[str, Completion] | Callable[[RolloutRequest], Completion],
        tokenizer=None,
        logprobs: Logprobs | None = None,
        policy_version: int = 0,
    ) -> None:
        """
        Args:
            completions: by prompt_id, or a function of the request.
            tokenizer: encodes completions that are texts.
            logprobs: (request, completion ids with the prefix) -> one number per id; zeros without it.
        """
        self._completions = completions
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self.policy_version = policy_version
        self.requests: list[RolloutRequest] = []  # everything that was asked for, in order

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """Returns the stored completion of every request, cut as `sampling` says."""
        rollouts = []
        for index, request in enumerate(requests):
            self.requests.append(request)
            rollouts.append(self._rollout(request, sampling))
            if finished is not None:
                finished(index, rollouts[-1])
            if progress is not None:
                progress(len(rollouts[-1].completion_ids) - rollouts[-1].prefix_len)
        return rollouts

    def _rollout(self, request: RolloutRequest, sampling: Sampling) -> Rollout:
        written, stopped = self._written(request, sampling)
        completion_ids = (*request.prefix_ids, *written)
        logprobs = self._logprobs(request, completion_ids) if self._logprobs else [0.0] * len(completion_ids)
        if len(logprobs) != len(completion_ids):
            raise ValueError(f"{len(logprobs)} log-probs for {len(completion_ids)} tokens of {request.prompt_id!r}")
        return Rollout(
            prompt_ids=request.prompt_ids,
            completion_ids=completion_ids,
            prefix_len=len(request.prefix_ids),
            logprobs=tuple(float(value) for value in logprobs),
            policy_version=self.policy_version,
            stop_reason="stop" if stopped else "length",
            prompt_id=request.prompt_id,
            sample_index=request.sample_index,
        )

    def _written(self, request: RolloutRequest, sampling: Sampling) -> tuple[list[int], bool]:
        """The ids after the prefix, and whether they end with a stop id."""
        script = self._completions(request) if callable(self._completions) else self._completions[request.prompt_id]
        if isinstance(script, str):
            if self._tokenizer is None:
                raise ValueError("ScriptedEngine needs a tokenizer for completions that are texts")
            script = self._tokenizer.encode(script, add_special_tokens=False)
        written: list[int] = []
        for token in [*script, *sampling.stop_ids[:1]]:
            if len(written) == sampling.max_new_tokens:
                break
            written.append(int(token))
            if token in sampling.stop_ids:
                return written, True
        return written, False

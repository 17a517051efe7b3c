"""Answers of vLLM's completions API: JSON, with a dictionary a token. Of a server that was started without
`harness.rollout.packed_route`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.rollout.vllm import Answer, Call, EngineFailure, Logprobs


def read_choice(answer: Any, call: Call) -> Answer:
    """The completions API's answer to one prompt; EngineFailure if it does not have as many log-probs as tokens."""
    try:
        (choice,) = answer["choices"]
        ids = tuple(int(token) for token in choice["token_ids"])
        written = prompt = None
        if call.options.get("logprobs") is not None:
            written = _written(choice["logprobs"], len(ids), call.options["logprobs"])
        if call.options.get("prompt_logprobs") is not None:
            prompt = _prompt(choice["prompt_logprobs"], call)
        return Answer(ids, choice["finish_reason"] == "stop", written, prompt)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineFailure(f"the vLLM server's answer cannot be read: {type(error).__name__}: {error}") from error


def _written(found: Any, positions: int, top_k: int) -> Logprobs:
    if len(found["token_logprobs"]) != positions:
        raise EngineFailure(f"the vLLM server gave {len(found['token_logprobs'])} log-probs for {positions} tokens")
    rows = [
        [(int(name.removeprefix("token_id:")), value) for name, value in (row or {}).items()]
        for row in found["top_logprobs"] or [None] * positions
    ]
    chosen = np.asarray(found["token_logprobs"], dtype=np.float32)
    return _ranked(chosen, rows, top_k)


def _prompt(found: Any, call: Call) -> Logprobs:
    if len(found) != len(call.prompt_ids):
        raise EngineFailure(f"the vLLM server gave {len(found)} prompt log-probs for {len(call.prompt_ids)} tokens")
    rows = [[(int(token), entry["logprob"]) for token, entry in row.items()] for row in found[1:]]
    chosen = [row[str(token)]["logprob"] for row, token in zip(found[1:], call.prompt_ids[1:], strict=True)]
    return _ranked(np.asarray(chosen, dtype=np.float32), rows, call.options["prompt_logprobs"])


def _ranked(chosen: np.ndarray, rows: list[list[tuple[int, float]]], top_k: int) -> Logprobs:
    """The k most probable of each row; the chosen token stands among them only if it is one."""
    best = [sorted(row, key=lambda entry: -entry[1])[:top_k] for row in rows]
    if any(len(row) != top_k for row in best):
        raise EngineFailure(f"the vLLM server gave fewer than {top_k} log-probs at a position")
    ids = np.asarray([[token for token, _ in row] for row in best], dtype=np.int64).reshape(len(rows), top_k)
    values = np.asarray([[value for _, value in row] for row in best], dtype=np.float32).reshape(len(rows), top_k)
    return Logprobs(chosen, ids, values)

"""What the harness adds to a vLLM worker (`worker_extension_cls`): callable in process and through a server's
/collective_rpc.

Two repairs live here, each for a trap that raises no error. Reloading weights leaves a tied head on the CPU with the
old ones, because the head's repacked copy is not made again: `retie_head`. And the two heads of a pair may be padded to
different sizes: `harness_narrow` cuts the logits to the shared vocabulary before the softmax.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from harness.models.private_names import KEPT_VOCABULARY, PACK_HEAD

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class WorkerExtension:
    """Methods of the worker; `vllm_config`, `model_runner` and `reload_weights` are vLLM's."""

    vllm_config: Any
    model_runner: Any
    reload_weights: Any

    def harness_describe(self) -> dict[str, Any]:
        """What the engine serves, to be compared with the trainer's own."""
        from harness.models.loading import load_tokenizer, stored_stop_ids

        config = self.vllm_config.model_config
        tokenizer = load_tokenizer(config.tokenizer, config.tokenizer_revision)
        return {
            "vocab_size": int(config.get_vocab_size()),
            "dtype": str(config.dtype).removeprefix("torch."),
            "max_length": int(config.max_model_len),
            "max_logprobs": int(config.max_logprobs),
            "tokenizer": vocabulary_digest(tokenizer),
            # not config.model: a push by way of the disk has put its own folder there, which holds weights only
            "stop_ids": list(stored_stop_ids(config.tokenizer, config.tokenizer_revision, tokenizer)),
        }

    def harness_load(self, weights: Iterable[tuple[str, Tensor]] | None = None, path: str | None = None) -> None:
        """Replaces the weights by the given ones, or by those of a folder."""
        if path is None:
            self.reload_weights(weights_iterator=iter(weights or ()))
        else:
            self.reload_weights(weights_path=path)
        self.harness_retie()

    def harness_retie(self) -> None:
        """After any change of the weights: the tied head's second copy."""
        retie_head(self.model_runner.get_model())

    def harness_narrow(self, vocab_size: int) -> None:
        """Cuts the logits to the first `vocab_size` tokens, before the softmax."""
        KEPT_VOCABULARY.put(self.model_runner.get_model().logits_processor, int(vocab_size))


def retie_head(model: nn.Module) -> None:
    """Gives a tied head the embedding's weights again, and on a CPU repacks them for its matrix product."""
    from vllm.platforms import current_platform

    config: Any = model.config
    if not getattr(config, "tie_word_embeddings", False):
        return
    head: Any = model.get_submodule("lm_head")
    head.weight = model.get_submodule("model.embed_tokens").weight
    if current_platform.is_cpu():
        PACK_HEAD.get()(head, remove_weight=False)


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """16 hex digits of the map from token to id."""
    return hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()[:16]

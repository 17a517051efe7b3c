"""Names of other libraries that those promise nobody, in one place: a new version may drop any of them.

`tests/models/test_private_names.py` and `tests/vllm/test_private_names.py` say which are missing in the installed
versions; the former also that no other file of the harness reaches for such a name. vLLM is imported at the first use
of one of its own.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PrivateName:
    """Something that is not of a library's interface.

    `where` is module:object, or module:object.attribute. `set_by`, likewise, is the code that gives instances the
    attribute, where the class itself does not have it.
    """

    where: str
    why: str
    set_by: str | None = None

    @property
    def name(self) -> str:
        """The last part alone."""
        return self.where.replace(":", ".").rpartition(".")[2]

    def get(self) -> Any:
        """The object; ImportError that says what is missing and what for."""
        return found_at(self.where, self.why)

    def of(self, holder: Any) -> Any:
        """The attribute of an instance or a class."""
        return getattr(holder, self.name)

    def put(self, holder: Any, value: Any) -> None:
        """Sets the attribute."""
        setattr(holder, self.name, value)


def found_at(where: str, why: str) -> Any:
    """What stands at module:object.attribute; ImportError if nothing does."""
    module, _, path = where.partition(":")
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ImportError(f"this version of {module.partition('.')[0]} has no {where}: {why}") from error
    return found


TEMPLATE_CLOCK = PrivateName(
    "transformers.utils.chat_template_utils:datetime",
    "a template that writes today's date reads it here, and must write the same on every day",
)
ATTENTION = PrivateName(
    "transformers:PreTrainedConfig._attn_implementation",
    "sampling with many queries a key head asks for an attention of our own, for as long as a step lasts; the public "
    "setter looks through the whole model each time",
)
DEVICE_COUNT = PrivateName(
    "transformers:TrainingArguments._n_gpu",
    "the Trainer wraps a student in DataParallel wherever it sees several GPUs, and has no option against it",
    set_by="transformers:TrainingArguments",
)
LOAD_YAML = PrivateName(
    "lm_eval.tasks._yaml_loader:load_yaml",
    "a task's file is read as lm-eval reads it, with its own tags and includes",
)

LOGPROBS_PROCESSOR = PrivateName(
    "vllm.v1.engine.logprobs:LogprobsProcessor",
    "makes Python lists of the tensors in which prompt log-probs arrive; they are kept as arrays instead",
)
UPDATE_PROMPT_LOGPROBS = PrivateName(
    "vllm.v1.engine.logprobs:LogprobsProcessor._update_prompt_logprobs",
    "is the step that makes the lists, and what it makes stands in `prompt_logprobs`",
)
PROMPT_TENSORS = PrivateName(
    "vllm.v1.outputs:LogprobsTensors",
    "is what arrives: ids [n, 1 + k], log-probs [n, 1 + k], ranks, in this order",
)
ENGINE_CLIENT = PrivateName(
    "vllm.entrypoints.launchers.api_server.app_state:init_app_state.engine_client",
    "is the engine behind a server's application, which answers the calls that come packed",
    set_by="vllm.entrypoints.launchers.api_server.app_state:init_app_state",
)
ENGINE_CORE = PrivateName(
    "vllm.v1.engine.llm_engine:LLMEngine.engine_core",
    "is shut down, so that an engine gives its memory back; a vllm.LLM has no such method",
    set_by="vllm.v1.engine.llm_engine:LLMEngine",
)
PACK_HEAD = PrivateName(
    "vllm.model_executor.layers.utils:dispatch_cpu_unquantized_gemm",
    "on a CPU a head is multiplied by its repacked copy, which reloading weights leaves as it was",
)
KEPT_VOCABULARY = PrivateName(
    "vllm.model_executor.layers.logits_processor:LogitsProcessor.org_vocab_size",
    "cuts the logits to the vocabulary that a pair shares, before the softmax",
    set_by="vllm.model_executor.layers.logits_processor:LogitsProcessor",
)
JSON_SAFE = PrivateName(
    "vllm.distributed.weight_transfer.clients:_json_safe_update_payload",
    "says the weights' names, types and shapes as vLLM's own HTTP client says them",
)

ALL = tuple(value for value in globals().values() if isinstance(value, PrivateName))

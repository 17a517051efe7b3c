"""A backend of vLLM's weight transfer that works in one process without a GPU: the same interface as NCCL's and CUDA
IPC's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vllm.distributed.weight_transfer.base import (
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory, WeightTransferTrainerFactory


@dataclass
class _WorkerInit(WeightTransferInitInfo):
    pass


@dataclass
class _Update(WeightTransferUpdateInfo):
    weights: Any


class _Receiver(WeightTransferEngine):
    init_info_cls, update_info_cls = _WorkerInit, _Update

    def init_transfer_engine(self, init_info):
        pass

    def start_weight_update(self):
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def finish_weight_update(self):
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)

    def update_weights(self, update_info):
        self.receive_weights(self.parse_update_info(update_info))  # vLLM's own then waits for an accelerator

    def receive_weights(self, update_info):
        self.model.load_weights(iter(update_info.weights))

    def shutdown(self):
        pass


@dataclass
class LocalInitInfo(TrainerInitInfo):
    backend: ClassVar[str] = "local"


class _Sender(TrainerWeightTransferEngine):
    init_info_cls = LocalInitInfo

    @classmethod
    def trainer_init(cls, init_info, *, client, source=None):
        client.init_weight_transfer_engine({})
        return cls(client=client, source=source, is_sender=init_info.is_sender)

    def send_weights(self):
        self.client.start_weight_update()
        self.client.update_weights({"weights": [(name, weight.detach()) for name, weight in self.source]})
        self.client.finish_weight_update()


WeightTransferEngineFactory.register_engine("local", _Receiver)
WeightTransferTrainerFactory.register_engine("local", _Sender)


def client_of(llm: Any) -> Any:
    """vLLM's VLLMWeightSyncClient over an LLM in this process."""

    class Client:
        def init_weight_transfer_engine(self, init_info):
            llm.init_weight_transfer_engine({"init_info": init_info})

        def start_weight_update(self):
            llm.start_weight_update()

        def update_weights(self, update_info):
            llm.update_weights({"update_info": update_info})

        def finish_weight_update(self, weight_version=None):
            llm.finish_weight_update(weight_version)

    return Client()

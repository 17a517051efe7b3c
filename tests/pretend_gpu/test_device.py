"""The pretended GPU itself: what CUDA would refuse is refused, what it allows is allowed, numbers are the CPU's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from tests.pretend_gpu.device import DeviceMix, PretendGPU

CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu() -> Iterator[PretendGPU]:
    with PretendGPU() as pretended:
        yield pretended


def there() -> Tensor:
    return torch.arange(6.0, device="cuda")


def here() -> Tensor:
    return torch.arange(6.0)


@pytest.mark.parametrize(
    "mixes",
    [
        lambda: there() + here(),
        lambda: torch.where(here() > 2, there(), 0.0),
        lambda: there().view(2, 3) @ here().view(3, 2),
        lambda: torch.cat([there(), here()]),
        lambda: here()[there() > 2],  # indices on the GPU, values on the CPU
        lambda: there().index_put_((torch.tensor([1]),), torch.tensor([5.0])),  # values on the CPU
        lambda: there().gather(0, torch.tensor([1])),
        lambda: there() + torch.arange(6.0, device="cuda:1"),
        lambda: torch.nn.Linear(6, 1).to("cuda")(here()),
    ],
)
def test_what_cuda_refuses(gpu: PretendGPU, mixes: Callable[[], Tensor]) -> None:
    with pytest.raises(DeviceMix):
        mixes()


def test_what_cuda_allows(gpu: PretendGPU) -> None:
    """Numbers, 0-dimensional tensors, copies, indices on the CPU; what comes of them is on the GPU."""
    x = there()
    for made in (x + 1, x * torch.tensor(2.0), x[torch.tensor([0, 1])], x[here() > 2], x.clone().copy_(here())):
        assert made.device == CUDA and made.is_cuda and not made.is_cpu
    x[torch.tensor([True, False] * 3)] = 0.0
    assert x.cpu().tolist() == [0, 1, 0, 3, 0, 5]
    assert here().copy_(x).device.type == "cpu"


def test_a_device_goes_with_the_storage(gpu: PretendGPU) -> None:
    x = there()
    made = [x.view(2, 3).T[0], x.detach(), torch.zeros_like(x), x.new_ones(3), x.softmax(0), x[1:], x.data]
    assert all(tensor.device == CUDA for tensor in made)
    assert x.to("cpu").device.type == "cpu" and x.device == CUDA
    assert here().to(x).device == CUDA and here().to(torch.float64).device.type == "cpu"
    layer = torch.nn.Linear(6, 2).to("cuda:1")
    assert {p.device for p in layer.parameters()} == {torch.device("cuda", 1)}
    layer(x.to("cuda:1")).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.device == torch.device("cuda", 1)


def test_numpy_of_a_gpu_is_refused(gpu: PretendGPU) -> None:
    with pytest.raises(TypeError, match="numpy"):
        there().numpy()
    assert there().cpu().numpy().tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "work,waits",
    [
        (lambda x: x + 1, 0),
        (lambda x: x[1:].sum(), 0),
        (lambda x: x.sum().item(), 1),
        (lambda x: float(x.sum()), 1),
        (lambda x: bool((x > 1).any()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 1], 1),  # how many there are is a number of the GPU
        (lambda x: x[torch.tensor([1])], 1),  # the indices are copied
        (lambda x: torch.tensor([1.0], device="cuda"), 1),
        (lambda x: torch.zeros(3, device="cuda"), 0),
        (lambda x: torch.zeros(3).to("cuda"), 1),
        (lambda x: torch.zeros(3).to("cuda", non_blocking=True), 0),
        (lambda x: x.to("cuda"), 0),
        (lambda x: x.copy_(torch.zeros(6)), 1),
        (lambda x: x.clone().copy_(x), 0),
    ],
)
def test_waits_are_counted(gpu: PretendGPU, work: Callable[[Tensor], object], waits: int) -> None:
    x = torch.zeros(6, device="cuda")
    before = sum(gpu.waits.values())
    work(x)
    assert sum(gpu.waits.values()) - before == waits


def test_numbers_and_gradients_are_those_of_the_cpu() -> None:
    def trained(device: str) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 3).to(device)
        layer(torch.ones(2, 4, device=device)).log_softmax(-1).sum().backward()
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        optimizer.step()
        return layer.weight.grad.cpu(), layer.weight.detach().cpu()  # type: ignore[union-attr]

    expected = trained("cpu")
    with PretendGPU() as gpu:
        found = trained("cuda")
    assert gpu.launches > 10
    for mine, truth in zip(found, expected, strict=True):
        assert torch.equal(mine, truth)


def test_a_thread_enters_by_itself(gpu: PretendGPU) -> None:
    caught: list[type[BaseException]] = []

    def mixes() -> None:
        try:
            with gpu.entered():
                there() + here()
        except DeviceMix:
            caught.append(DeviceMix)

    thread = threading.Thread(target=mixes)
    thread.start()
    thread.join()
    assert caught == [DeviceMix]

"""A GPU that is not there: every tensor carries a pretended device; what CUDA would refuse raises, what it would wait
for is counted.

The numbers stay in main memory and are computed by the CPU. A tag belongs to a storage, so views and changes in place
keep it. Two torch modes do the work:

    functions   answers `.device` and `.is_cuda`, takes `device="cuda"` for a tag and `.to` for a copy with another tag,
                refuses `.numpy()` of a pretended device, counts `.tolist()`
    dispatch    every operation, those of the backward pass too: DeviceMix where tensors of two devices meet, unless
                CUDA allows it (numbers, copies, indices on the CPU); counts what makes the host wait

A copy between devices waits (PyTorch synchronises the stream of a blocking one), in either direction. Kernels, graphs,
streams and memory are not rehearsed. Modes are of a thread: a thread that is started inside has none (see `entered`).
"""

from __future__ import annotations

import contextlib
import linecache
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

CPU = torch.device("cpu")
COPIES = {"aten::copy_", "aten::_to_copy", "aten::set_", "aten::record_stream", "aten::_foreach_copy_"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
SIZE_UNKNOWN = {  # the host must know a number before it can go on
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::is_nonzero"),
    *("aten::unique_consecutive", "aten::equal", "aten::repeat_interleave", "aten::bincount"),
}
MANY_TAGS = 20_000  # after which those of freed storages are dropped


class DeviceMix(RuntimeError):
    """Tensors of two devices in one operation."""


def device_named(name: Any) -> torch.device:
    """`cuda` is `cuda:0`."""
    device = torch.device(name)
    return torch.device("cuda", 0) if device.type == "cuda" and device.index is None else device


class _Tags:
    """Which device a storage pretends to be on; none: the CPU."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[StorageWeakRef, torch.device]] = {}

    def key(self, tensor: Tensor) -> Any:
        """The storage; None for a tensor without one."""
        try:
            return tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return None

    def get(self, tensor: Tensor) -> torch.device:
        storage = self.key(tensor)
        found = None if storage is None else self._of.get(storage._cdata)
        return CPU if found is None or found[0].expired() else found[1]

    def set(self, tensor: Tensor, device: torch.device) -> None:
        storage = self.key(tensor)
        if storage is None:
            return
        if device.type == "cpu":
            self._of.pop(storage._cdata, None)
        else:
            self._of[storage._cdata] = (StorageWeakRef(storage), device)
        if len(self._of) > MANY_TAGS:
            self._of = {key: value for key, value in self._of.items() if not value[0].expired()}


def our_line() -> str:
    """The innermost line of the harness or of a method that is at work, as `room/file.py: its text`; of whoever is,
    outside of both.
    """
    frame, outermost = sys._getframe(2), ""
    while frame is not None:
        path = frame.f_code.co_filename
        if path != __file__ and "/torch/" not in path and "importlib" not in path:
            text = linecache.getline(path, frame.f_lineno).strip()
            line = "/".join(path.rsplit("/", 2)[-2:]) + f": {text}"
            outermost = outermost or line
            if "/harness/" in path or "/baselines/" in path:
                return line
        frame = frame.f_back
    return outermost


class PretendGPU:
    """A context manager. `waits` counts by the line of ours, `launches` kernels."""

    def __init__(self) -> None:
        self.tags = _Tags()
        self.waits: Counter[str] = Counter()
        self.launches = 0
        self._thread = threading.local()
        self._own = contextlib.ExitStack()

    def __enter__(self) -> PretendGPU:
        self._own.enter_context(self.entered())
        return self

    def __exit__(self, *error: object) -> None:
        self._own.close()

    @property
    def forced(self) -> torch.device | None:
        """The device that what this thread makes now belongs to."""
        return getattr(self._thread, "forced", None)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Both modes in this thread."""
        with _Functions(self), _Dispatch(self):
            yield

    @contextlib.contextmanager
    def forcing(self, device: torch.device | None) -> Iterator[None]:
        """What is made inside belongs to this device."""
        before = self.forced
        self._thread.forced = device if device is not None else before
        try:
            yield
        finally:
            self._thread.forced = before

    def wait(self) -> None:
        """Counts one, at the line of ours that is at work."""
        self.waits[our_line()] += 1

    def move(self, tensor: Tensor, device: torch.device, dtype: torch.dtype | None, **how: bool) -> Tensor:
        """What `.to` would give."""
        before = self.tags.get(tensor)
        if before == device and not how.get("copy"):
            return tensor if dtype in (None, tensor.dtype) else torch.Tensor.to(tensor, dtype)
        if before != device and not how.get("non_blocking"):
            self.wait()
        with self.forcing(device):
            moved = tensor.clone() if dtype is None else torch.Tensor.to(tensor, dtype, copy=True)
        self.tags.set(moved, device)
        return moved


class _Functions(TorchFunctionMode):
    def __init__(self, gpu: PretendGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu = dict(kwargs or {}), self.gpu
        known, found = self._of_tensor(func, args, kwargs)
        if known:
            return found
        asked = device_named(kwargs["device"]) if kwargs.get("device") is not None else None
        if asked is not None and asked.type == "cuda":
            kwargs["device"] = CPU
            if func in (torch.tensor, torch.as_tensor):
                gpu.wait()
        with gpu.forcing(asked):
            result = func(*args, **kwargs)
        if asked is not None:
            for tensor in tree_flatten(result)[0]:
                if isinstance(tensor, Tensor):
                    gpu.tags.set(tensor, asked)
        return result

    def _of_tensor(self, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[bool, Any]:
        """The tensor's own attributes and methods that know of devices: whether `func` is one, and its answer."""
        if not args or not isinstance(args[0], Tensor):
            return False, None
        tensor, gpu, kind = args[0], self.gpu, torch.Tensor
        device = gpu.tags.get(tensor)
        on_gpu = device.type == "cuda"
        if func == kind.device.__get__:
            return True, device
        if func in (kind.is_cuda.__get__, kind.is_cpu.__get__):
            return True, on_gpu == (func == kind.is_cuda.__get__)
        if func is kind.get_device:
            return True, device.index if on_gpu else -1
        if func is kind.pin_memory:
            return True, tensor
        if func is kind.tolist and on_gpu:
            gpu.wait()
            return True, func(tensor.detach().clone()) if gpu.forced else self._listed(tensor)
        if func in (kind.numpy, kind.__array__) and on_gpu:
            raise TypeError(f"can't convert {device} device type tensor to numpy, at {our_line()}")
        if func is kind.cpu:
            return True, gpu.move(tensor, CPU, None)
        if func is kind.cuda:
            return True, gpu.move(tensor, device_named(args[1] if len(args) > 1 else "cuda"), None)
        if func is kind.to:
            return True, self._to(tensor, args[1:], kwargs)
        return False, None

    def _listed(self, tensor: Tensor) -> Any:
        with self.gpu.forcing(CPU):
            copy = tensor.detach().clone()
        self.gpu.tags.set(copy, CPU)
        return torch.Tensor.tolist(copy)

    def _to(self, tensor: Tensor, rest: Any, kwargs: dict[str, Any]) -> Tensor:
        tags = self.gpu.tags
        if rest and isinstance(rest[0], Tensor):
            return self.gpu.move(tensor, tags.get(rest[0]), rest[0].dtype)
        device, dtype = kwargs.get("device"), kwargs.get("dtype")
        flags = [value for value in rest if isinstance(value, bool)]
        for value in rest:
            if isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, str | torch.device | int) and not isinstance(value, bool):
                device = value
        how = {"copy": bool(kwargs.get("copy")), "non_blocking": bool(kwargs.get("non_blocking") or any(flags[:1]))}
        return self.gpu.move(tensor, tags.get(tensor) if device is None else device_named(device), dtype, **how)


class _Dispatch(TorchDispatchMode):
    def __init__(self, gpu: PretendGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu, tags, name = kwargs or {}, self.gpu, self.gpu.tags, func._schema.name
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        devices = [tags.get(tensor) for tensor in given]
        on_gpu = [device for device in devices if device.type == "cuda"]
        target = on_gpu[0] if on_gpu else CPU
        if on_gpu:
            if name not in COPIES and gpu.forced is None:
                self._check(name, args, given, devices)
            self._count(func, args, kwargs, devices)
        result = func(*args, **kwargs)
        if name in ("aten::copy_", "aten::_foreach_copy_"):
            return result
        known = {tags.key(tensor)._cdata for tensor in given if tags.key(tensor) is not None}
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor) and (own := tags.key(tensor)) is not None and own._cdata not in known:
                tags.set(tensor, gpu.forced or target)
        return result

    def _check(self, name: str, args: Any, given: list[Tensor], devices: list[torch.device]) -> None:
        """DeviceMix for what CUDA would refuse."""
        cards = {device for device in devices if device.type == "cuda"}
        pairs = list(zip(given, devices, strict=True))
        strays = [tensor for tensor, device in pairs if device.type == "cpu" and tensor.dim()]
        if name in INDEXING:
            if devices[0].type == "cpu":
                raise DeviceMix(f"{name}: indices on a GPU, values on the CPU, at {our_line()}")
            indices = [index for index in args[1] if isinstance(index, Tensor)]
            strays = [tensor for tensor in strays if not any(tensor is index for index in indices)]
        if len(cards) > 1 or strays:
            what = ", ".join(f"{tuple(tensor.shape)} on {device}" for tensor, device in pairs)
            raise DeviceMix(f"{name} of {what}, at {our_line()}")

    def _count(self, func: Any, args: Any, kwargs: Any, devices: list[torch.device]) -> None:
        gpu, name = self.gpu, func._schema.name
        gpu.launches += not func.is_view
        waits = name in SIZE_UNKNOWN
        if name in INDEXING:
            indices = [index for index in args[1] if isinstance(index, Tensor)]
            waits |= any(index.dtype == torch.bool or gpu.tags.get(index) == CPU for index in indices)
        if name == "aten::copy_":
            non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            waits |= devices[0] != devices[1] and not non_blocking and gpu.forced is None
        if waits:
            gpu.wait()

"""How many bytes of tensors code has alive, counted by running it on tensors without values.

Every operation is dispatched as it would be, but on device `meta`, which computes shapes alone, so that it takes some
30 microseconds whatever the size. What autograd saves for a backward pass is alive for as long as it would be, and a
storage that several tensors share counts once. On a CPU this is what the allocator counts, but for scratch buffers
inside of an operation.

`Shape` says that it is on a CPU, or on `meta` where the path of a GPU is asked for, which is not here as a rule. Its
autocast is a CPU's. Two kernels of a GPU are stated by hand, of which nothing else here has the like: attention
(`_FusedAttention`) and the norm, which its autocast computes in float32 (`_FusedNorm`).
"""

import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only


class LiveBytes:
    """Counts the storages that are alive of all tensors that are made in its `with` block: `now`, and `highest`."""

    def __init__(self, device: str, dtype: torch.dtype):
        self.device = torch.device("cpu" if device == "cpu" else "meta")
        self.dtype = dtype
        self.now = self.highest = 0
        self._known: set[int] = set()

    def __enter__(self) -> "LiveBytes":
        self._ranges = _Ranges(self)
        self._ranges.__enter__()
        return self

    def __exit__(self, *fault: Any) -> None:
        self._ranges.__exit__(*fault)

    def new(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of this shape, which counts."""
        return self.wrapped(torch.empty(*shape, dtype=dtype, device="meta"))

    def wrapped(self, meta: torch.Tensor) -> torch.Tensor:
        self.count(meta)
        return Shape(meta, self)

    def count(self, meta: torch.Tensor) -> None:
        storage = meta.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.highest = max(self.highest, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def restart(self) -> None:
        """`highest` is from now on."""
        self.highest = self.now


class Shape(torch.Tensor):
    """A tensor without values, on the device that its counter says."""

    meta: torch.Tensor
    live: LiveBytes

    @staticmethod
    def __new__(cls, meta: torch.Tensor, live: LiveBytes):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            meta.size(),
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device="cpu",  # of its autograd and autocast
        )
        tensor.meta, tensor.live = meta, live
        return tensor

    def __init__(self, *_: Any):
        pass

    @property
    def device(self) -> torch.device:
        return self.live.device

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            return _FusedAttention.apply(*(x.to(x.live.dtype) for x in args))
        if function is F.rms_norm:
            return _FusedNorm.apply(args[0].float())
        return super().__torch_function__(function, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, cls)]
        live, wrappers = given[0].live, {id(shape.meta): shape for shape in given}
        args, kwargs = tree_map_only(torch.Tensor, _meta, (args, dict(kwargs or {})))
        if "device" in kwargs:
            kwargs["device"] = torch.device("meta")
        results = function(*args, **kwargs)

        def outer(meta: torch.Tensor) -> torch.Tensor:
            # What an operation in place returns is what it was given.
            return wrappers[id(meta)] if id(meta) in wrappers else live.wrapped(meta)

        return tree_map_only(torch.Tensor, outer, results)


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    """Small tensors with values, such as those of formats and rotations, meet those without."""
    return tensor.meta if isinstance(tensor, Shape) else tensor.to("meta")


class _Ranges(TorchFunctionMode):
    """Makes ranges, which may be as long as a batch, without values too. (Not in a backward pass: torch takes modes
    off there.)"""

    def __init__(self, live: LiveBytes):
        super().__init__()
        self.live = live

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.arange:
            return self.live.wrapped(function(*args, **{**kwargs, "device": "meta"}))
        return function(*args, **(kwargs or {}))


class _FusedAttention(torch.autograd.Function):
    """What FlashAttention keeps: its inputs, its output, and a sum for each head and position."""

    @staticmethod
    def forward(ctx, q, k, v):
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, _, _ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


class _FusedNorm(torch.autograd.Function):
    """RMSNorm, which keeps its input and a scale for each row."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x, x.new_empty(x.shape[:-1]))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, grad):
        return torch.empty_like(ctx.saved_tensors[0])

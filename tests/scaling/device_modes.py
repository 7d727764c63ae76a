"""What computes on one device must not wait for another: a watch over code that refuses whatever would make it.

A GPU computes behind the Python program that sends it work. A value that the program reads, a tensor that it
makes on the CPU and sends over, an operation whose result's shape depends on values: each makes one wait for the other.
None of these needs a GPU to be seen: on device `meta`, which has shapes but no numbers, the same Python code runs and
the same operations are dispatched.

Two modes of torch look at the same code from two sides. The dispatch mode sees every operation with its tensors, those
of the backward pass too, but not what torch.tensor does inside, nor where a list of indices comes from. The function
mode sees the calls that Python code makes. Three makers of tensors go past both, and are replaced for the time.
"""

import contextlib
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Function = Callable[..., Any]

READS: dict[Function, str] = {
    getattr(torch.Tensor, name): f"Tensor.{name}"
    for name in (
        *("item", "tolist", "numpy", "__array__", "__dlpack__"),
        *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "__format__", "__repr__"),
    )
} | {function: f"torch.{function.__name__}" for function in (torch.equal, torch.allclose, torch.is_nonzero)}
MAKERS: dict[Function, str] = {
    torch.tensor: "torch.tensor",
    torch.as_tensor: "torch.as_tensor",
    torch.asarray: "torch.asarray",
    torch.Tensor.new_tensor: "Tensor.new_tensor",
}
PAST_MODES = ("from_numpy", "frombuffer", "from_dlpack")
INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
OUT_OF_SIGHT = {torch.autograd.grad: "torch.autograd.grad"}
"""Functions that would run code of ours with the function mode switched off."""

DISPATCHED_READS = {"aten._local_scalar_dense", "aten.is_nonzero", "aten.item", "aten.equal", "aten.allclose"}
SHAPED_BY_VALUES = {
    *("aten.nonzero", "aten.argwhere", "aten.masked_select", "aten.bincount", "aten.repeat_interleave"),
    *("aten._unique", "aten._unique2", "aten.unique_dim", "aten.unique_consecutive"),
}


class Refused(AssertionError):
    """An offence that is not known."""


class Watch:
    """Looks at all that torch does within its `with` block on behalf of one device.

    An offence is named `what in module.function`, after the innermost function outside torch. Those that are `known`
    are counted and let pass; any other raises `Refused` where it happens. With `known=None` all are counted.

    On `meta` there is nothing to read: reads that pass are answered as if all were well, with True by tensors of
    booleans and zeros by others.
    """

    def __init__(self, device: str | torch.device, known: Collection[str] | None = ()):
        self.device, self.known = torch.device(device).type, known
        self.offences: Counter[str] = Counter()
        self.operations: list[str] = []
        """Every operation that was dispatched, in order, such as `aten.bmm.default`."""
        self.judged = False  # within a call that was judged as a whole

    def __enter__(self) -> "Watch":
        self.thread = threading.get_ident()
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(_makers_replaced(self))
        self.stack.enter_context(_Dispatch(self))
        self.stack.enter_context(_Functions(self))
        return self

    def __exit__(self, *fault) -> None:
        self.stack.__exit__(*fault)

    def offence(self, what: str) -> None:
        if threading.get_ident() != self.thread:  # which makes batches ready, and may
            return
        name = f"{what} in {_where()}"
        self.offences[name] += 1
        if self.known is not None and name not in self.known:
            raise Refused(f"{name}; known: {', '.join(sorted(self.known)) or 'none'}")

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """What happens within belongs to one call, whose offence is counted already."""
        before, self.judged = self.judged, True
        try:
            yield
        finally:
            self.judged = before

    def elsewhere(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type != self.device


def dispatched(call: Callable[[], object], device: str = "meta") -> list[str]:
    """The operations that a call dispatches, in order; nothing is refused."""
    with Watch(device, known=None) as watch:
        call()
    return watch.operations


class _Functions(TorchFunctionMode):
    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        watch, kwargs = self.watch, kwargs or {}
        if watch.judged:
            return func(*args, **kwargs)
        if func is torch.Tensor.backward:
            # Torch would call it with this mode switched off, and our own backward functions with it.
            with self:
                return _backward(*args, **kwargs)
        what = READS.get(func) or MAKERS.get(func) or OUT_OF_SIGHT.get(func)
        if what is None and func in INDEXING and any(isinstance(i, list | np.ndarray) for i in _indices(args[1])):
            what = "indexing by a list"
        if what is None:
            return func(*args, **kwargs)
        watch.offence(what)
        with watch.whole():
            return func(*(_readable(a) for a in args), **kwargs) if func in READS else func(*args, **kwargs)


class _Dispatch(TorchDispatchMode):
    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        watch, kwargs = self.watch, kwargs or {}
        with torch._C.DisableTorchFunction():
            if watch.judged:
                return func(*args, **kwargs)
            watch.operations.append(str(func))
            name = str(func.overloadpacket)
            if name in DISPATCHED_READS:
                watch.offence(name)
                with watch.whole():
                    return func(*(_readable(a) for a in args), **kwargs)
            if name in SHAPED_BY_VALUES or _by_mask(name, args):
                watch.offence(f"{name} of a shape that values decide")
            if name == "aten._to_copy" and "device" in kwargs:
                return self._copied(func, args, kwargs)
            places = {watch.elsewhere(t) for t in _tensors((args, kwargs))}
            if len(places) > 1:
                watch.offence(f"mixed devices of {name}")
            found = func(*args, **kwargs)
            if len(places) < 2 and any(watch.elsewhere(t) for t in _tensors(found)):
                watch.offence(f"foreign output of {name}")
            return found

    def _copied(self, func, args, kwargs):
        watch = self.watch
        start, end = watch.elsewhere(args[0]), torch.device(kwargs["device"]).type != watch.device
        if end and not start:
            watch.offence("copy off the device")
            return func(_readable(args[0]), **kwargs)
        if start:
            watch.offence("foreign output of aten._to_copy" if end else "copy to the device")
        return func(*args, **kwargs)


@contextlib.contextmanager
def _makers_replaced(watch: Watch) -> Iterator[None]:
    originals = {name: getattr(torch, name) for name in PAST_MODES}

    def replaced(name: str) -> Function:
        def maker(*args, **kwargs):
            if not watch.judged:
                watch.offence(f"torch.{name}")
            with watch.whole():
                return originals[name](*args, **kwargs)

        return maker

    try:
        for name in PAST_MODES:
            setattr(torch, name, replaced(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(torch, name, original)


def _backward(loss, gradient=None, retain_graph=None, create_graph=False, inputs=None):
    torch.autograd.backward(loss, gradient, retain_graph, create_graph, inputs=inputs)


def _tensors(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _indices(index: object) -> tuple:
    return index if isinstance(index, tuple) else (index,)


def _by_mask(name: str, args: tuple) -> bool:
    """Indexing by booleans; writing one value where they are true is a plain `masked_fill`."""
    if name not in ("aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_"):
        return False
    masked = any(t.dtype in (torch.bool, torch.uint8) for t in _tensors(args[1]))
    return masked and not (len(args) > 2 and args[2].numel() == 1)


def _readable(value: object) -> object:
    """What stands for a tensor without numbers where it is read."""
    if not isinstance(value, torch.Tensor) or value.device.type != "meta":
        return value
    return torch.full(value.shape, value.dtype == torch.bool, dtype=value.dtype, device="cpu")


def _where() -> str:
    """The innermost function outside torch and this module."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module != __name__ and module.partition(".")[0] not in ("torch", "contextlib"):
            # A comprehension has a frame of its own up to Python 3.11.
            return re.sub(r"\.<locals>\.<(list|set|dict)comp>$", "", f"{module}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return "torch"

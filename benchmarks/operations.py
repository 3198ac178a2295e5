"""What a computation does on its device, counted on any device: kernels by kind, synchronizations.

``python -m benchmarks.operations`` prints the table of a LightningDiT block in docs/performance.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.subject import Subject

KINDS = (
    *("matrix products", "attention", "casts of weights", "casts of activations"),
    *("copies", "reductions", "elementwise"),
)
_KIND_OF = {
    **dict.fromkeys(("mm", "addmm", "bmm", "convolution", "convolution_backward"), KINDS[0]),
    **dict.fromkeys(("stack", "cat", "clone", "copy_", "flip", "index", "index_select"), KINDS[4]),
    **dict.fromkeys(("sum", "mean", "amax", "linalg_vector_norm"), KINDS[5]),
}
_WAITS = frozenset(
    {
        *("_local_scalar_dense", "item", "tolist", "cpu", "numpy", "__bool__", "__int__"),
        *("__float__", "__index__", "nonzero", "masked_select", "is_nonzero", "equal"),
        *("_unique2", "unique_consecutive", "unique_dim", "allclose"),
    }
)
"""Operations for which the host waits until the device has done all that is queued."""


class Kernels(TorchDispatchMode):
    """Counts kernels by their kind; views start none.

    Args:
        weights: casts from or to tensors of their shapes are casts of weights.
    """

    def __init__(self, weights: Iterable[Tensor] = ()):
        super().__init__()
        self._shapes = {weight.shape for weight in weights}
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count and call the operation."""
        result = function(*args, **(kwargs or {}))
        if not _is_view(function):
            self.counts[self._kind(function.overloadpacket.__name__, result)] += 1
        return result

    def _kind(self, name: str, result: Any) -> str:
        if name == "_to_copy":
            return KINDS[2] if result.shape in self._shapes else KINDS[3]
        return KINDS[1] if "attention" in name else _KIND_OF.get(name, KINDS[6])


def _is_view(function: Any) -> bool:
    returned = [value.alias_info for value in function._schema.returns]
    return bool(returned) and all(info is not None and not info.is_write for info in returned)


class Synchronizations:
    """Counts the operations for which a host would wait for its GPU, by name.

    Tensors that are meant to be on the CPU count too.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._modes = ExitStack()

    def __enter__(self) -> Self:
        self._modes.enter_context(_Called(self.counts))
        self._modes.enter_context(_Dispatched(self.counts))
        return self

    def __exit__(self, *error: object) -> None:
        self._modes.close()


class _Called(TorchFunctionMode):
    """Sees what reads a tensor without an operation, such as ``tolist``."""

    def __init__(self, counts: Counter[str]):
        super().__init__()
        self._counts = counts

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if (name := getattr(function, "__name__", "")) in _WAITS:
            self._counts[name] += 1
        return function(*args, **(kwargs or {}))


class _Dispatched(TorchDispatchMode):
    """Sees what operations and the backward pass do."""

    def __init__(self, counts: Counter[str]):
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        # The places where a mask is true have to be found first.
        masked = name in ("index", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for index in tree_leaves(args[1])
        )
        if name in _WAITS or masked:
            self._counts[name] += 1
        return function(*args, **(kwargs or {}))


def block_kernels(subject: Subject) -> dict[str, Counter[str]]:
    """Kernels of the first block's passes in a training step, in bf16 autocast."""
    network: Any = subject.network()
    block: nn.Module = network.blocks[0]
    shape = (subject.batch, subject.side**2, subject.size.width)
    tokens = torch.randn(shape, device=subject.device, requires_grad=True)
    condition = torch.randn(subject.batch, 1, shape[-1], device=subject.device, requires_grad=True)
    with torch.autocast(subject.device.type, torch.bfloat16):
        rotation = network.feat_rope(tokens)
        forward, out = _counted(block, lambda: block(tokens, condition, rotation))
    backward, _ = _counted(block, lambda: out.backward(torch.ones_like(out)))
    return {"forward": forward, "backward": backward}


def _counted(block: nn.Module, work: Callable[[], Any]) -> tuple[Counter[str], Any]:
    with Kernels(block.parameters()) as kernels:
        result = work()
    return kernels.counts, result


def table(counts: Mapping[str, Counter[str]]) -> str:
    """The counts as a table in Markdown."""
    lines = [f"| kernels of a block | {' | '.join(counts)} |", "| --- |" + " --- |" * len(counts)]
    for kind in KINDS:
        numbers = " | ".join(str(count[kind]) for count in counts.values())
        lines.append(f"| {kind} | {numbers} |")
    return "\n".join(lines)


def small_subject() -> Subject:
    """A network of one small block: counts do not depend on sizes."""
    return Subject(
        device=torch.device("cpu"),
        preset=None,
        depth=1,
        width=48,
        heads=2,
        channels=4,
        side=4,
        batch=3,
        bf16=True,
    )


if __name__ == "__main__":
    print(table(block_kernels(small_subject())))

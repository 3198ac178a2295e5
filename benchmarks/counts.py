"""What a training step of the tokenizer computes, and how often: ``python -m benchmarks.counts``.

Counted on the CPU; nothing of it depends on sizes, or on the device but for what the columns say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.tokenizer import LPIPS, BuiltStep, TokenizerStep

DINO = (
    "tokenizer.adversarial={weight: 0.5, adaptive: true, discriminator: {use: dino, weights: none,"
    " resolution: 16, width: 32, depth: 2, heads: 2, layers: [0, 1]}}"
)
MICRO_BATCHES = 2
SMALL = (
    "data.image_size=16",
    "tokenizer.encoder.width=24",
    *("tokenizer.decoder.width=24", "tokenizer.decoder.depth=1"),
    "tokenizer.reconstruction.perceptual.weight=0",
    "tokenizer.train.batch_size=4",
    f"tokenizer.train.accumulate={MICRO_BATCHES}",
    LPIPS,
    DINO,
)
"""The networks and terms of the full-size recipes, small."""

WAYS: dict[str, dict[str, bool]] = {
    "plain, float32": {"plain": True},
    "float32 on the CPU": {},
    "plain, bf16": {"plain": True, "bf16": True},
    "bf16": {"bf16": True},
}


def main() -> None:
    """Print the table of docs/performance.md."""
    columns = {name: counted_step(**settings) for name, settings in WAYS.items()}
    table = Table("per step", *columns)
    for row in columns["bf16"]:
        table.add_row(row, *(str(found[row]) for found in columns.values()))
    Console(width=120).print(table)


def counted_step(plain: bool = False, bf16: bool = False) -> dict[str, int]:
    """What the second step of a training computes, by row of the table."""
    step = TokenizerStep(torch.device("cpu"), SMALL, bf16, plain).build()
    step()
    return counts(step)


def counts(step: BuiltStep) -> dict[str, int]:
    """What one step of :data:`SMALL` computes; passes are per image."""
    objective, discriminator = step.objective, step.discriminator
    tokenizer = objective.tokenizer
    lpips: Any = objective.reconstruction.frozen_modules()["lpips"]
    trunk: Any = discriminator
    frozen = (tokenizer.encoder, objective.refiner, lpips, *trunk.frozen_modules().values())
    with ExitStack() as stack:
        encoder, modulator, decoder, features, logits = (
            stack.enter_context(passes_of(network))
            for network in (
                *(tokenizer.encoder, tokenizer.delta_encoder, tokenizer.decoder),
                *(lpips.network[0], discriminator),
            )
        )
        operations = stack.enter_context(Operations(w for f in frozen for w in f.parameters()))
        step()

    def forward(passes: list[Pass]) -> int:
        whole, rest = divmod(sum(one.images for one in passes), step.batch)
        assert not rest
        return whole

    compared = [one for one in features if one.differentiable]  # reconstruction, then mcr's
    decodes = len(compared) // MICRO_BATCHES
    return {
        "frozen encoder": forward(encoder),
        "modulator": forward(modulator),
        "decoder": forward(decoder),
        "LPIPS features": forward(features),
        "back through LPIPS, reconstruction": most(compared[::decodes]),
        "back through LPIPS, each decode of mcr": most(
            one for index, one in enumerate(compared) if index % decodes
        ),
        "discriminator": forward(logits),
        "back through the discriminator, tokenizer's step": most(logits[:MICRO_BATCHES]),
        "back through the discriminator, its own step": most(logits[MICRO_BATCHES:]),
        "casts of frozen weights": operations.casts,
        "synchronizations": operations.synchronizations,
    }


class Pass:
    """A forward pass, and the number of backward passes through it."""

    def __init__(self, output: Tensor, images: int):
        self.images, self.differentiable, self.backward = images, output.requires_grad, 0
        if output.requires_grad:
            output.register_hook(self._count)

    def _count(self, gradient: Tensor) -> None:
        self.backward += 1


def most(passes: Iterable[Pass]) -> int:
    """The largest number of backward passes through one of them."""
    return max(one.backward for one in passes)


@contextmanager
def passes_of(network: nn.Module) -> Iterator[list[Pass]]:
    """Lists the network's forward passes inside the block."""
    passes: list[Pass] = []

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        first = output if isinstance(output, Tensor) else output.tokens
        passes.append(Pass(first, len(inputs[0])))

    hook = network.register_forward_hook(after)
    try:
        yield passes
    finally:
        hook.remove()


class Operations(TorchDispatchMode):
    """Counts casts of the given weights, and what would wait for a GPU.

    Waiting are: reading a value (``item``, ``tolist``, ``cpu``, ``numpy``, ``bool`` of a tensor),
    results whose shape depends on values (``nonzero``, masks), and tensors made of Python numbers,
    which are copied from memory that is not pinned. Numbers drawn as the seed of a step are on the
    CPU and do not count.
    """

    METHODS = ("tolist", "cpu", "numpy")

    def __init__(self, weights: Iterable[Tensor]):
        super().__init__()
        self.casts = self.synchronizations = 0
        self._weights = {id(weight): weight for weight in weights}
        self._seeds: dict[int, Tensor] = {}  # by address
        self._originals: dict[str, Any] = {}

    def __enter__(self) -> Operations:
        self._originals = {name: getattr(Tensor, name) for name in self.METHODS}
        for name, original in self._originals.items():
            setattr(Tensor, name, self._counted(original))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for name, original in self._originals.items():
            setattr(Tensor, name, original)

    def _counted(self, original: Any) -> Any:
        def method(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.synchronizations += 1
            return original(tensor, *args, **kwargs)

        return method

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if func is torch.ops.aten._to_copy.default:
            self.casts += id(args[0]) in self._weights
        elif not any(x.data_ptr() in self._seeds for x in tensors):
            self.synchronizations += _waits(func, tensors)
        result = func(*args, **kwargs)
        if func is torch.ops.aten.randint.generator:
            self._seeds[result.data_ptr()] = result
        return result


def _waits(func: Any, tensors: list[Tensor]) -> bool:
    if func is torch.ops.aten.index.Tensor:  # by a mask
        return any(x.dtype == torch.bool for x in tensors[1:])
    waiting = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    return func is torch.ops.aten.lift_fresh.default or bool(waiting & set(func.tags))


if __name__ == "__main__":
    main()

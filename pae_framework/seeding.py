"""Seeds derived from the purpose of random numbers, so that each can be reproduced alone.

A seed is a hash of its parts, as in ``derive_seed(seed, "order", epoch)``. Each use has its own
seed and nothing depends on earlier draws, so a resumed run draws the same numbers.

Several processes may share a batch. The numbers of an image must not depend on how: a generator
made with :class:`Rows` belongs to a process that has some rows of the batch, and :func:`randn` and
:func:`rand` draw the numbers of the whole batch and return those of its rows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """Hash the parts to a seed from 0 to 2**63 - 1.

    It is the same on every machine and in every Python. ``1`` and ``"1"`` differ, and so do
    ``("ab", "c")`` and ``("a", "bc")``.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = str(part).encode()
        kind = "s" if isinstance(part, str) else "i"
        digest.update(f"{kind}{len(text)}:".encode() + text)
    return int.from_bytes(digest.digest(), "big") >> 1


@dataclass(frozen=True)
class Rows:
    """The rows ``start`` to ``stop`` - 1 of a batch of ``total`` rows, which one process has.

    Raises:
        ValueError: they are none, or not rows of the batch.
    """

    start: int
    stop: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= self.total:
            raise ValueError(
                f"rows {self.start} to {self.stop} (exclusive) are no part of a batch of "
                f"{self.total} rows"
            )

    @classmethod
    def of(cls, rank: int, size: int, total: int) -> Rows:
        """The rows of process ``rank`` of ``size``: contiguous; the first have at most one more.

        Raises:
            ValueError: there is no such process, or there are fewer rows than processes.
        """
        if not 0 <= rank < size:
            raise ValueError(f"no process {rank} among {size}: they are 0 to {size - 1}")
        if total < size:
            raise ValueError(f"a batch of {total} rows cannot be shared by {size} processes")
        fewest, larger = divmod(total, size)
        start = rank * fewest + min(rank, larger)
        return cls(start, start + fewest + (rank < larger), total)

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def share(self) -> float:
        """Share of the batch: the weight of a mean over these rows in the mean over all."""
        return len(self) / self.total


def generator(
    *parts: int | str, device: torch.device | str = "cpu", rows: Rows | None = None
) -> torch.Generator:
    """Create a random generator on ``device``, seeded by :func:`derive_seed` of the parts.

    torch uses only the lower 32 bits of a seed on the CPU: of n seeds, about n^2 / 2^33 pairs are
    equal.

    Args:
        parts: what the numbers are for.
        device: where they are drawn. A GPU's numbers differ from those of the CPU and of other
            models of GPU.
        rows: the rows of the batch that this process has, for :func:`randn` and :func:`rand`; None:
            all. Numbers that torch draws directly from a generator of some rows are independent
            between processes, but depend on how the batch is shared.
    """
    if rows is None or len(rows) == rows.total:
        return _whole_generator(parts, torch.device(device))
    own = _RowsGenerator(device=device)
    own.manual_seed(derive_seed(*parts, "rows", rows.start))
    own.rows, own.whole = rows, _whole_generator(parts, torch.device(device))
    return own


def _whole_generator(parts: Sequence[int | str], device: torch.device) -> torch.Generator:
    if device.type == "cpu":
        return torch.Generator().manual_seed(derive_seed(*parts))
    own = _DeviceGenerator(device=device)
    own.manual_seed(derive_seed(*parts))
    own.seeds = generator(*parts, "seeds")
    return own


class _RowsGenerator(torch.Generator):
    """A generator of a process that has some rows of a batch.

    Attributes:
        rows: these rows.
        whole: draws the numbers of the whole batch; equal in all processes.
    """

    rows: Rows
    whole: torch.Generator


class _DeviceGenerator(torch.Generator):
    """A generator on a GPU.

    Attributes:
        seeds: draws seeds, on the CPU: reading a number from a GPU would wait for its queued work.
    """

    seeds: torch.Generator


def rows_of(generator: torch.Generator) -> Rows | None:
    """The rows whose numbers the generator draws; None: the whole batch.

    For a second generator of the same rows: ``generator(..., rows=rows_of(first))``.
    """
    return generator.rows if isinstance(generator, _RowsGenerator) else None


def randn(
    shape: Sequence[int],
    generator: torch.Generator,
    dim: int = 0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw standard normal numbers for each image, on the generator's device.

    An image has the same numbers whichever process has it, if all processes make the same calls.

    Args:
        shape: of the numbers of this process' images.
        generator: of this process.
        dim: the dimension of ``shape`` that counts images.
        dtype: floating-point type; None: torch's default.

    Raises:
        ValueError: ``shape[dim]`` is not the number of rows that the generator is for.
    """
    return _draw(torch.randn, shape, generator, dim, dtype)


def rand(
    shape: Sequence[int],
    generator: torch.Generator,
    dim: int = 0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw uniform numbers in [0, 1) for each image; see :func:`randn`."""
    return _draw(torch.rand, shape, generator, dim, dtype)


def _draw(
    draw: Callable[..., Tensor],
    shape: Sequence[int],
    generator: torch.Generator,
    dim: int,
    dtype: torch.dtype | None,
) -> Tensor:
    if not isinstance(generator, _RowsGenerator):
        return draw(tuple(shape), generator=generator, device=generator.device, dtype=dtype)
    rows, whole = generator.rows, generator.whole
    if shape[dim] != len(rows):
        raise ValueError(
            f"numbers of shape {tuple(shape)} have {shape[dim]} rows in dimension {dim}, but this "
            f"process has {len(rows)} of the {rows.total} rows of the batch; `dim` must be the "
            "dimension of the images"
        )
    full = [*shape]
    full[dim] = rows.total
    numbers = draw(full, generator=whole, device=whole.device, dtype=dtype)
    return numbers.narrow(dim, rows.start, len(rows))


def draw_seed(generator: torch.Generator) -> int:
    """Draw a seed from 0 to 2**63 - 2, the same in all processes that share the batch."""
    whole = generator.whole if isinstance(generator, _RowsGenerator) else generator
    source = whole.seeds if isinstance(whole, _DeviceGenerator) else whole
    return int(torch.randint(2**63 - 1, (), generator=source, device=source.device))


@contextmanager
def random_states_kept() -> Iterator[None]:
    """After the block, the global random states of torch, NumPy and Python are as before it."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Inside the block, the global random states of torch, NumPy and Python follow from the parts.

    For code that takes no generator, such as the initial weights of modules.
    """
    seed = derive_seed(*parts)
    with random_states_kept():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield


def on_device(numbers: Tensor, device: torch.device) -> Tensor:
    """Move random numbers from the CPU to the device without synchronizing with it.

    A copy from pageable memory would wait until the device has finished its queued work.
    """
    if device.type != "cuda" or numbers.is_cuda:
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)

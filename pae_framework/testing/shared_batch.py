"""What is expected of computations on a batch that several processes or micro-batches share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pae_framework.seeding import Rows, generator
from pae_framework.testing.expect import expect, expect_close
from pae_framework.testing.modules import ROWS

T = TypeVar("T")
Module = TypeVar("Module", bound=nn.Module)

Compute = Callable[[Rows, torch.Generator], T]
"""Computes with some rows of a batch, and the generator of the process that has them."""

TERMS = 1e-4
"""Tolerance, of the term, between a batch and its parts."""

ADVICE = "draw random numbers with pae_framework.seeding.randn or rand"


def expect_rows_of_the_batch(compute: Compute[Tensor], total: int, what: str) -> None:
    """The results (rows, ...) of two processes are those of one, in order."""
    whole, parts = _shared(compute, total)
    expect_close(
        torch.cat([part for _, part in parts]).detach(),
        whole.detach(),
        ROWS,
        f"{what} of an image must not depend on how processes share the batch; {ADVICE}",
    )


def expect_means_over_images(compute: Compute[Mapping[str, Tensor]], total: int, what: str) -> None:
    """Each term of the whole batch is the mean, weighted by rows, of those of two processes."""
    whole, parts = _shared(compute, total)
    for name, term in whole.items():
        weighted = [rows.share * part[name].item() for rows, part in parts]
        mean, size = sum(weighted), sum(map(abs, weighted))
        expect(
            abs(mean - term.item()) <= TERMS * size,
            f"{what} {name!r} of a batch is {term.item():.4g}, but the mean over its two parts is "
            f"{mean:.4g}; take the mean over images, because micro-batches and processes share a "
            f"batch, and {ADVICE}",
        )


def without_batch_norm(module: Module) -> Module:
    """A copy whose batch norms do nothing. They make the images of a batch dependent on purpose."""
    bare = copy.deepcopy(module)
    for norm in bare.modules():
        if isinstance(norm, _BatchNorm):
            norm.forward = _unchanged  # type: ignore[assignment, method-assign]
    return bare


def _unchanged(x: Tensor) -> Tensor:
    return x


def _shared(compute: Compute[T], total: int) -> tuple[T, list[tuple[Rows, T]]]:
    """What one process computes with all rows, and what two compute with theirs."""
    whole = compute(Rows(0, total, total), generator("shared batch"))
    shares = [Rows.of(rank, 2, total) for rank in range(2)]
    return whole, [(rows, compute(rows, generator("shared batch", rows=rows))) for rows in shares]

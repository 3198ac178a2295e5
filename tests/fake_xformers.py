"""A package xformers, which cannot be installed on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torch import Tensor


def stand_in(
    monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., Tensor] | None = None
) -> list[tuple[int, ...]]:
    """Install it for a test; returns the shapes of the queries of all calls.

    ``kernel`` computes attention; None: by its definition, in xformers' layout (B, N, H, K).
    """
    calls: list[tuple[int, ...]] = []

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(tuple(q.shape))
        return (kernel or by_definition)(q, k, v)

    package, ops = ModuleType("xformers"), ModuleType("xformers.ops")
    package.__spec__ = ModuleSpec("xformers", None)
    ops.memory_efficient_attention = attend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    return calls


def remove(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uninstall it for a test."""
    monkeypatch.setitem(sys.modules, "xformers", None)
    monkeypatch.delitem(sys.modules, "xformers.ops", raising=False)


def by_definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bnhk,bmhk->bhnm", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhnm,bmhk->bnhk", scores.softmax(dim=-1), v)


def without_kernels(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What a package does that has none for the device."""
    raise NotImplementedError("No operator found for `memory_efficient_attention_forward`")

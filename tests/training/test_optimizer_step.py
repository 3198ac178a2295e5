"""Gradient accumulation: micro-batches give the gradient of the whole batch."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pae_framework.contracts import Batch, LossTerms
from pae_framework.training.loop import TrainedNetwork, optimizer_step
from pae_framework.training.parallel import ParallelModule
from pae_framework.training.train_settings import OptimizerSettings
from pae_framework.world import ONE_PROCESS


class Mean(nn.Module):
    """A loss that is a mean over images, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        loss = (self.net(batch[0]) - batch[1]).square().mean()
        return {"fit": loss, "loss": loss}


def gradients(sizes: list[int]) -> tuple[dict[str, torch.Tensor], LossTerms]:
    """Gradient at the optimizer, and the terms, for a batch of 7 images split into these sizes."""
    module = Mean()
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    for group in optimizer.param_groups:
        group["lr_factor"] = 1.0
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(7, 3, dtype=torch.float64, generator=draw)
    y = torch.randn(7, 1, dtype=torch.float64, generator=draw)
    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
    settings = OptimizerSettings(lr=1.0, schedule="constant", clip=None)
    parallel = ParallelModule(module, ONE_PROCESS, "ddp", torch.device("cpu"))
    network = TrainedNetwork(module, optimizer, parallel, settings, total=1)
    terms = optimizer_step(network, 0, parts, 7, lambda index: torch.Generator())
    # Plain gradient descent with rate 1: the step is the gradient.
    return {name: before[name] - p.detach() for name, p in module.named_parameters()}, terms


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_micro_batches_of_any_sizes_give_gradient_and_terms_of_the_batch(cuts: list[int]):
    edges = sorted({0, 7, *cuts})
    sizes = [b - a for a, b in pairwise(edges)]
    whole, terms = gradients([7])
    parts, sums = gradients(sizes)
    for name, gradient in whole.items():
        assert torch.allclose(gradient, parts[name], rtol=1e-12, atol=1e-14)
    for name in ("fit", "loss", "grad_norm"):
        assert sums[name].item() == pytest.approx(terms[name].item(), rel=1e-12)

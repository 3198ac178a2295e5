"""A batch in micro-batches: what is the same as in one, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizer_fakes import FakeEncoder
from torch import Tensor, nn

from pae_framework.build import build_objective, build_tokenizer
from pae_framework.config import DiscriminatorConfig
from pae_framework.contracts import Discriminator, LossTerms
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import Registry
from pae_framework.tokenizer.losses.adversarial import AdversarialTerm, Schedule
from pae_framework.training.loop import TrainedNetwork, optimizer_step
from pae_framework.training.parallel import ParallelModule
from pae_framework.training.train_settings import OptimizerSettings
from pae_framework.world import ONE_PROCESS


class Reddish(Discriminator):
    """A logit per image, the more the redder; not the same slope for all."""

    def __init__(self) -> None:
        super().__init__(DiscriminatorConfig(), 16)
        self.slope = nn.Parameter(torch.tensor(3.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.slope * images[:, 0].square().mean((1, 2))[:, None]


@pytest.fixture
def step(
    section: Callable[..., TokenizerSection], registry: Registry, encoder: FakeEncoder
) -> Callable[..., tuple[Tensor, LossTerms]]:
    """The gradient of one optimizer step on six images, as one vector, and its mean terms."""
    described = section()
    tokenizer = build_tokenizer(described, 16, registry, encoder)
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    images *= torch.tensor([0.1, 0.2, 0.4, 0.6, 0.8, 1.0]).view(6, 1, 1, 1)

    def step(parts: int, adaptive: bool) -> tuple[Tensor, LossTerms]:
        term = AdversarialTerm(Reddish(), Schedule(0, 0, 0), 0.5, adaptive)
        module = build_objective(tokenizer, described, registry, None, term).train()
        found: list[Tensor] = []
        optimizer: Any = torch.optim.SGD(module.parameters(), lr=0.0)
        optimizer.param_groups[0]["lr_factor"] = 0.0  # the weights stay
        optimizer.register_step_pre_hook(
            lambda *_: found.extend(p.grad.flatten() for p in module.parameters())
        )
        parallel = ParallelModule(module, ONE_PROCESS, "ddp", images.device)
        settings = OptimizerSettings(clip=None)
        network = TrainedNetwork(module, optimizer, parallel, settings, total=1)
        batches = [(part,) for part in images.chunk(parts)]
        terms = optimizer_step(network, 0, batches, 6, lambda i: torch.Generator().manual_seed(i))
        return torch.cat(found), terms

    return step


Step = Callable[..., tuple[Tensor, LossTerms]]


def apart(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / one.norm()).item()


def test_means_over_images_have_the_gradient_of_the_whole_batch(step: Step) -> None:
    (whole, terms), (parts, sums) = step(1, adaptive=False), step(3, adaptive=False)
    assert apart(whole, parts) < 1e-6
    for name in ("l1", "perceptual", "adversarial", "loss"):
        torch.testing.assert_close(sums[name], terms[name], rtol=1e-5, atol=1e-7)


def test_an_adaptive_weight_is_of_each_micro_batch(step: Step) -> None:
    """Its mean over them is another number than that of the batch, and so is the gradient."""
    (whole, terms), (parts, sums) = step(1, adaptive=True), step(3, adaptive=True)
    assert apart(terms["adversarial_weight"], sums["adversarial_weight"]) > 1e-2
    assert apart(whole, parts) > 1e-3
    torch.testing.assert_close(sums["l1"], terms["l1"])

"""The contract of generators."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.config import GeneratorConfig
from pae_framework.contracts import Generator
from pae_framework.promises import map_order_problem
from pae_framework.testing.expect import expect, expect_none
from pae_framework.testing.modules import expect_network
from pae_framework.testing.synthetic import normal


def check_generator(generator: Generator, config: GeneratorConfig) -> None:
    """Check a generator that was built as ``Generator(config, latent, num_classes)``.

    The velocity is finite and of the latents' shape, for all times in [0, 1] and all labels
    including the null label. It depends on latents, time and label, and is computed for each image
    by itself. There is no randomness, every weight learns, and the state dict is complete.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    expect(isinstance(generator, Generator), f"{generator!r} is no contracts.Generator")
    latent, classes = generator.latent, generator.num_classes
    config.check_latent(latent)
    x = normal(4, latent.channels, latent.side, latent.side, seed=0)
    t = torch.tensor([0.0, 0.3, 0.7, 1.0])
    y = torch.tensor([0, classes - 1, classes, 0])

    def build() -> Generator:
        return type(generator)(config, latent, classes)

    moved = expect_network(generator, (x, t, y), tuple(x.shape), build, "the generator")

    def velocity(x: Tensor) -> Tensor:
        return moved(x, t[:1].expand(len(x)), y[:1].expand(len(x)))

    expect_none(map_order_problem(velocity, x[:1], latent.side, "the velocities"))
    _check_dependence(moved, x)


@torch.no_grad()
def _check_dependence(moved: Generator, x: Tensor) -> None:
    """Compare the velocities of two latents, two times, and two labels, one of them null."""
    x = x[:1].expand(2, -1, -1, -1)
    half, label = torch.full((2,), 0.5), torch.zeros(2, dtype=torch.int64)
    pairs = {
        "the latents": moved(torch.cat([x[:1], -x[:1]]), half, label),
        "the time": moved(x, torch.tensor([0.1, 0.9]), label),
    }
    by_label = moved(x, half, torch.tensor([0, moved.num_classes]))
    if moved.conditional:
        pairs["the label (guidance needs the null label to differ)"] = by_label
    else:
        message = "the velocity depends on the label, but `conditional` is False"
        expect(torch.equal(*by_label), message)
    for name, (first, second) in pairs.items():
        expect(not torch.equal(first, second), f"the velocity does not depend on {name}")

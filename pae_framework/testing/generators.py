"""The contract of generators."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.config import GeneratorConfig
from pae_framework.contracts import Generator
from pae_framework.testing.expect import expect, expect_tensor
from pae_framework.testing.modules import (
    as_if_trained,
    expect_bf16,
    expect_gradients,
    expect_repeatable,
    expect_rows_apart,
)
from pae_framework.testing.state import expect_state
from pae_framework.testing.synthetic import draw


def check_generator(generator: Generator, config: GeneratorConfig) -> None:
    """Check a generator that was built as ``Generator(config, latent, num_classes)``.

    A finite velocity of the latents' shape for all times in [0, 1] and all labels with the null
    label, which depends on latents, time and label; each image for itself; no randomness; every
    weight learns; the state dict holds all it knows.

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    expect(isinstance(generator, Generator), f"{generator!r} is no contracts.Generator")
    latent, classes = generator.latent, generator.num_classes
    config.check_latent(latent)
    moved = as_if_trained(generator).train()
    x = draw(4, latent.channels, latent.side, latent.side, seed=0)
    t = torch.tensor([0.0, 0.3, 0.7, 1.0])
    y = torch.tensor([0, classes - 1, classes, 0])

    def velocity(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        out: Tensor = moved(x, t, y)
        return out

    found = velocity(x, t, y)
    expect_tensor(found, tuple(x.shape), "the velocity")
    expect_repeatable(lambda: velocity(x, t, y), "the generator in train mode")
    expect_rows_apart(velocity, x, t, y, what="the velocity")
    expect_bf16(lambda: velocity(x, t, y), "the generator")
    _check_dependence(moved, x)
    expect_gradients(found, moved, "the generator")
    expect_state(
        moved,
        lambda: type(generator)(config, latent, classes),
        lambda module: module(x, t, y),
    )


@torch.no_grad()
def _check_dependence(moved: Generator, x: Tensor) -> None:
    """One latent under two times, two labels (one of them null), and another latent."""
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
    for name, (one, other) in pairs.items():
        expect(not torch.equal(one, other), f"the velocity does not depend on {name}")

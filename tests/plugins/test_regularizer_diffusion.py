"""The auxiliary diffusion loss: value and gradient by hand, with known velocity fields."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import Posterior, RegularizerInputs
from pae_framework.flow.flow_settings import TimeSettings
from pae_framework.flow.path import sample_times
from pae_framework.seeding import randn
from pae_regularizers.config import DiffusionConfig
from pae_regularizers.diffusion import Diffusion, VelocityNetwork

SHAPE = (3, 2, 4, 4)
Field = Callable[[Tensor, Tensor], Tensor]


def term(**parameters: int) -> Diffusion:
    torch.manual_seed(0)
    small = {"width": 16, "depth": 1, "heads": 2, **parameters}
    found = Diffusion(DiffusionConfig.model_validate(small))
    found.prepare(LatentShape(SHAPE[1], SHAPE[2]), 8, None)
    return found


class Known(nn.Module):
    """A velocity field in place of the network."""

    def __init__(self, field: Field):
        super().__init__()
        self.field = field

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.field(x, t.view(-1, 1, 1, 1))


def inputs(latents: Tensor, seed: int = 4) -> RegularizerInputs:
    """The other fields are not looked at."""
    empty = torch.zeros(1)
    return RegularizerInputs(
        images=empty,
        reconstruction=empty,
        features=empty,
        posterior=Posterior(latents),
        target=None,
        decode=lambda z: z,
        distance=lambda a, b: (a - b).abs().mean(),
        generator=torch.Generator().manual_seed(seed),
    )


def drawn(seed: int = 4) -> tuple[Tensor, Tensor]:
    """The noise and the times (B, 1, 1, 1) of a step."""
    generator = torch.Generator().manual_seed(seed)
    noise = randn(SHAPE, generator)
    return noise, sample_times(TimeSettings(), len(noise), generator).view(-1, 1, 1, 1)


def latents() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("factor", [0.0, 0.7, -2.0])
def test_value_and_gradient_are_those_of_a_linear_field(factor: float) -> None:
    """v = a x: the residual r = a (t z + (1 - t) x_0) - (z - x_0) has the slope a t - 1 in z."""
    z, (noise, t) = latents(), drawn()
    regularizer = term()
    regularizer.network = Known(lambda x, _: factor * x)  # type: ignore[assignment]
    value = regularizer(inputs(z))
    value.backward()
    residual = (factor * (t * z + (1 - t) * noise) - (z - noise)).detach()
    assert value.item() == pytest.approx(residual.square().mean().item(), rel=1e-6)
    expected = 2 * residual * (factor * t - 1) / residual.numel()
    torch.testing.assert_close(z.grad, expected)


def test_the_network_begins_with_the_velocity_0() -> None:
    """So the first value is the mean of (z - x_0)^2."""
    z, (noise, _) = latents(), drawn()
    assert term()(inputs(z)).item() == pytest.approx((z - noise).square().mean().item())


def test_constant_latents_are_the_easiest() -> None:
    """For z = c, x_t - c = (1 - t) (x_0 - c): the velocity c - x_0 is (c - x) / (1 - t)."""
    c = 0.6
    regularizer = term()
    regularizer.network = Known(lambda x, t: (c - x) / (1 - t))  # type: ignore[assignment]
    assert regularizer(inputs(torch.full(SHAPE, c))).item() < 1e-10


def test_the_network_learns_from_the_term_and_uses_position_and_time() -> None:
    """Latents that differ between positions only are as easy as constant ones."""
    z = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 4, 4).expand(SHAPE)
    regularizer = term(width=32)
    optimizer = torch.optim.Adam(regularizer.parameters(), 5e-3)
    values = []
    for step in range(200):
        optimizer.zero_grad()
        value = regularizer(inputs(z, seed=step))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[:10]) / 10 == pytest.approx(2, rel=0.2)  # E (z - x_0)^2 = z^2 + 1
    assert sum(values[-10:]) / 10 < 0.8
    network = regularizer.network
    assert isinstance(network, VelocityNetwork)
    x = torch.zeros(2, *SHAPE[1:])
    early, late = network(x, torch.tensor([0.2, 0.8]))
    assert not torch.allclose(early, late, atol=1e-2)


@pytest.mark.parametrize(
    "parameters", [{"width": 18, "heads": 2}, {"width": 16, "heads": 3}, {"depth": 0}]
)
def test_impossible_networks_are_refused(parameters: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=next(iter(parameters))):
        DiffusionConfig.model_validate(parameters)

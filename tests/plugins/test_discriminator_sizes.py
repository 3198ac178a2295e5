"""What configs say of their networks' sizes, against the networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pae_discriminators.config import DinoDiscriminatorConfig, PatchGANConfig
from pae_discriminators.dino import DinoDiscriminator
from pae_discriminators.patchgan import PatchGAN


@pytest.mark.parametrize("parameters", [{}, {"layers": 1, "width": 8}, {"layers": 5, "width": 3}])
def test_patchgan(parameters: dict[str, Any]) -> None:
    config = PatchGANConfig(**parameters)
    with torch.device("meta"):
        network = PatchGAN(config, 256)
    assert sum(p.numel() for p in network.parameters()) == config.parameters(256)


@pytest.mark.parametrize(
    "config", [DinoDiscriminatorConfig(), DinoDiscriminatorConfig().smoke()], ids=["full", "smoke"]
)
def test_dino(config: DinoDiscriminatorConfig) -> None:
    with torch.device("meta"):
        network = DinoDiscriminator(config, 256)
    weights = [*network.parameters(), *network.frozen.parameters()]
    assert sum(p.numel() for p in weights) == config.parameters(256)

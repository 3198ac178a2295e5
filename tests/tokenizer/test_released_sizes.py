"""Parameter counts of the released sizes, in millions, as printed from PAE's own modules."""

from __future__ import annotations

import pytest
import torch
from tokenizer_fakes import fake_encoder
from torch import nn

from pae_decoders.config import VitDecoderConfig
from pae_decoders.vit import VitDecoder
from pae_framework.tokenizer.model import Deprojector, Projector
from pae_modulators.config import DAMConfig
from pae_modulators.dam import DetailAwareModulator


def millions(module: nn.Module) -> float:
    """Numbers in the state dict: fixed positions are part of the released files and counted."""
    return sum(tensor.numel() for tensor in module.state_dict().values()) / 1e6


@pytest.mark.parametrize(
    ("width", "patch", "expected"), [(1024, 14, 103.76), (1024, 16, 103.94), (1152, 16, 131.39)]
)
def test_modulator(width: int, patch: int, expected: float) -> None:
    with torch.device("meta"):
        encoder = fake_encoder(16 * patch, width=width, heads=16, patch=patch)
        dam = DetailAwareModulator(DAMConfig(), encoder)
    assert millions(dam) == pytest.approx(expected, abs=0.005)
    assert DAMConfig().parameters_at(width, 16, patch) / 1e6 == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("fusion", ["sft", "add", "concat", "none"])
@pytest.mark.parametrize("cross", [True, False])
def test_modulator_counted_without_building_it(fusion: str, cross: bool) -> None:
    values = {"fusion": fusion, "cross": cross, "depth": 3, "mlp_ratio": 2.5}
    config = DAMConfig.model_validate(values)
    with torch.device("meta"):
        encoder = fake_encoder(96, width=40, heads=4, patch=8)
        dam = DetailAwareModulator(config, encoder)
    counted = sum(tensor.numel() for tensor in dam.state_dict().values())
    assert config.parameters_at(40, 12, 8) == counted


@pytest.mark.parametrize(
    ("width", "compressor", "decompressor"), [(1024, 4.490, 4.491), (1152, 5.641, 5.642)]
)
def test_projector_and_deprojector(width: int, compressor: float, decompressor: float) -> None:
    with torch.device("meta"):
        assert millions(Projector(width, 16, 32)) == pytest.approx(compressor, abs=5e-4)
        assert millions(Deprojector(32, width, 16)) == pytest.approx(decompressor, abs=5e-4)


@pytest.mark.parametrize(("width", "expected"), [(1024, 304.41), (1152, 304.54)])
def test_vit_large_decoder(width: int, expected: float) -> None:
    config = VitDecoderConfig(width=1024, depth=24, heads=16, patch=16)
    with torch.device("meta"):
        assert millions(VitDecoder(config, width, 16)) == pytest.approx(expected, abs=0.005)

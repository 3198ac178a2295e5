"""What a recipe may say of LightningDiT: one size, written one way, that fits the latents."""

import pytest
from pydantic import ValidationError

from pae_framework.config import LatentShape
from pae_framework.plugins import load_registry
from pae_generators.config import Architecture, LightningDiTConfig

SMALL = {"width": 32, "depth": 2, "heads": 4, "patch": 1}


def test_it_is_registered():
    spec = load_registry().find("generator", "lightningdit")
    assert spec.config_class() is LightningDiTConfig
    assert spec.plugin.state != "broken"


@pytest.mark.parametrize(
    ("preset", "depth", "width", "heads", "patch"),
    [
        ("B/1", 12, 768, 12, 1),
        ("B/2", 12, 768, 12, 2),
        ("L/2", 24, 1024, 16, 2),
        ("XL/1", 28, 1152, 16, 1),
        ("XL/2", 28, 1152, 16, 2),
        ("1p0B/1", 24, 1536, 24, 1),
        ("1p0B/2", 24, 1536, 24, 2),
        ("1p6B/1", 28, 1792, 28, 1),
        ("1p6B/2", 28, 1792, 28, 2),
    ],
)
def test_presets_are_lightningdits(preset, depth, width, heads, patch):
    expected = Architecture(depth=depth, width=width, heads=heads, patch=patch)
    assert LightningDiTConfig(preset=preset).architecture == expected


def test_a_size_in_numbers():
    assert LightningDiTConfig(**SMALL).architecture == Architecture(2, 32, 4, 1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "no size: give `preset`, or"),
        ({"preset": "B/1", "width": 64, "heads": 4}, "already says width, heads; give one way"),
        ({"width": 32, "heads": 4}, "also needs depth, patch"),
        ({**SMALL, "heads": 5}, "5 heads do not divide the width 32"),
        (
            {**SMALL, "width": 24},
            "24 / 4 heads = 6 per head; rotary positions need a multiple of 4",
        ),
        ({"preset": "L/1"}, "XL/1"),
        ({**SMALL, "use_rope": False}, "Extra inputs are not permitted"),
    ],
)
def test_a_size_that_cannot_be(parameters, message):
    with pytest.raises(ValidationError, match=message):
        LightningDiTConfig(**parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"channels": 16}, "`channels` is 16, but the latents are 32 x 8 x 8; say 32 or null"),
        ({"side": 16}, "`side` is 16, but the latents are 32 x 8 x 8; say 8 or null"),
        ({"patch": 3}, "patch 3 does not divide the side of the latents, 32 x 8 x 8"),
    ],
)
def test_latents_that_do_not_fit(parameters, message):
    with pytest.raises(ValueError, match=message):
        LightningDiTConfig(**{**SMALL, **parameters}).check_latent(LatentShape(32, 8))


def test_latents_that_fit():
    LightningDiTConfig(**SMALL, channels=32, side=8).check_latent(LatentShape(32, 8))
    LightningDiTConfig(**SMALL).check_latent(LatentShape(5, 3))

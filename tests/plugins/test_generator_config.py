"""Configs of the generators: size, latents, classes, parameter counts, smoke versions."""

import pytest
import torch
from pydantic import ValidationError

from pae_framework.config import LatentShape
from pae_framework.testing.modules import as_if_trained
from pae_generators.config import LightningDiTConfig
from pae_generators.config_dh import DiTDHConfig
from pae_generators.dit_dh import DiTDH
from pae_generators.lightningdit import LightningDiT
from pae_generators.presets import PRESETS, Architecture, HeadArchitecture

SMALL = {"width": 32, "depth": 2, "heads": 4, "patch": 1}


@pytest.mark.parametrize("cls", [LightningDiTConfig, DiTDHConfig])
def test_classes_determine_parameters_and_stated_classes(cls):
    size = {} if cls is LightningDiTConfig else {"head_depth": 1, "head_width": 32, "head_heads": 2}
    latent = LatentShape(4, 4)

    def parameters(**more):
        return cls(**{**SMALL, **size, **more}).parameters(latent, 1000)

    assert parameters() - parameters(classes=10) == 990 * SMALL["width"]
    assert parameters() - parameters(classes=0) == 1000 * SMALL["width"]
    assert cls(**SMALL, **size, classes=10).stated_classes() == 10
    assert cls(**SMALL, **size, classes=0).stated_classes() is None


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
def test_presets_have_the_sizes_of_lightningdit(preset, depth, width, heads, patch):
    expected = Architecture(depth=depth, width=width, heads=heads, patch=patch)
    assert LightningDiTConfig(preset=preset).architecture == expected


def test_a_size_by_fields():
    assert LightningDiTConfig(**SMALL).architecture == Architecture(2, 32, 4, 1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "`preset`, or `depth`, `width`, `heads`, `patch`"),
        ({"preset": "B/1", "width": 64, "heads": 4}, r"`preset` B/1 .*\bwidth, heads\b"),
        ({"width": 32, "heads": 4}, "`depth`, `patch`"),
        ({**SMALL, "heads": 5}, "`heads` 5 .*`width` 32"),
        (
            {**SMALL, "width": 24},
            r"`width` 24 .*`heads` 4 .*\b6\b.*\b4\b",
        ),
        ({"preset": "L/1"}, "XL/1"),
        ({**SMALL, "use_rope": False}, "use_rope"),
        (
            {**SMALL, "width": 30, "heads": 3, "rope": False},
            r"`width` 30 .*\b4\b",
        ),
        ({**SMALL, "mlp": "relu"}, "'swiglu' or 'gelu'"),
        ({**SMALL, "attention": "flash"}, "'sdpa', 'xformers' or 'matmul'"),
    ],
)
def test_invalid_sizes_are_rejected(parameters, message):
    with pytest.raises(ValidationError, match=message):
        LightningDiTConfig(**parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"channels": 16}, r"`channels` is 16\b.*32 x 8 x 8.* 32\b"),
        ({"side": 16}, r"`side` is 16\b.*32 x 8 x 8.* 8\b"),
        ({"patch": 3}, "`patch` 3 .*32 x 8 x 8"),
    ],
)
def test_latents_of_another_shape_are_rejected(parameters, message):
    with pytest.raises(ValueError, match=message):
        LightningDiTConfig(**{**SMALL, **parameters}).check_latent(LatentShape(32, 8))


def test_latents_of_the_configured_or_any_shape_are_accepted():
    LightningDiTConfig(**SMALL, channels=32, side=8).check_latent(LatentShape(32, 8))
    LightningDiTConfig(**SMALL).check_latent(LatentShape(5, 3))


def test_without_positions_width_need_not_be_a_multiple_of_four():
    LightningDiTConfig(
        **{**SMALL, "width": 30, "heads": 5, "rope": False}, absolute_positions=False
    )


# --- DiT-DH ---------------------------------------------------------------------------------------

SMALL_DH = {
    **{"depth": 2, "width": 16, "heads": 2},
    **{"head_depth": 1, "head_width": 24, "head_heads": 3},
}


@pytest.mark.parametrize(
    ("preset", "encoder"),
    [("S", Architecture(12, 384, 6, 1)), ("XL", Architecture(28, 1152, 16, 1))],
)
def test_presets_have_the_sizes_of_rae(preset, encoder):
    expected = HeadArchitecture(encoder, Architecture(2, 2048, 16, 1))
    assert DiTDHConfig(preset=preset).architecture == expected


def test_dit_dh_by_fields():
    expected = HeadArchitecture(Architecture(2, 16, 2, 2), Architecture(1, 24, 3, 2))
    assert DiTDHConfig(**SMALL_DH, patch=2).architecture == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "`preset`, or `depth`, `width`, `heads`, `head_depth`"),
        ({"preset": "S", "head_depth": 4}, r"`preset` S .*\bhead_depth\b"),
        ({"depth": 2, "width": 32}, "`heads`, `head_depth`, `head_width`, `head_heads`"),
        ({**SMALL_DH, "head_heads": 5}, "`heads` 5 .*`width` 24"),
    ],
)
def test_invalid_sizes_of_dit_dh_are_rejected(parameters, message):
    with pytest.raises(ValidationError, match=message):
        DiTDHConfig(**parameters)


def test_patches_of_dit_dh_must_tile_the_latents():
    with pytest.raises(ValueError, match=r"`patch` 3 .*4 x 8"):
        DiTDHConfig(**SMALL_DH, patch=3).check_latent(LatentShape(4, 8))


def test_only_dit_dh_is_data_first_by_default():
    assert LightningDiTConfig(**SMALL).time == "noise_first"
    assert DiTDHConfig(**SMALL_DH).time == "data_first"


# --- classes --------------------------------------------------------------------------------------


def test_classes_must_be_those_of_the_images_or_0():
    assert LightningDiTConfig(**SMALL).class_count(10) == 10
    assert LightningDiTConfig(**SMALL, classes=10).class_count(10) == 10
    assert LightningDiTConfig(**SMALL, classes=0).class_count(10) == 0
    with pytest.raises(ValueError, match=r"`classes` is 12\b.*\b10\b"):
        LightningDiTConfig(**SMALL, classes=12).class_count(10)


def test_only_a_network_without_classes_is_unconditional():
    assert [LightningDiTConfig(**SMALL, classes=k).conditional for k in (None, 5, 0)] == [
        True,
        True,
        False,
    ]


# --- what the engine asks before anything is built ------------------------------------------------


@pytest.mark.parametrize("name", ["sdpa", "xformers", "matmul"])
def test_the_engine_learns_which_attention_kernel_is_used(name):
    assert LightningDiTConfig(**SMALL, attention=name).attention_kernel() == name


VARIANTS = [
    {},
    {"qk_norm": True},
    {"norm": "layer", "qk_norm": True},
    {"norm": "layer", "mlp": "gelu", "rope": False},
    {"adaln_shift": False},
    {"absolute_positions": False},
    {"classes": 0},
]


def counted(cls, config, latent, classes):
    """Parameters of the real network, without memory for them."""
    with torch.device("meta"):
        return sum(p.numel() for p in cls(config, latent, classes).parameters())


@pytest.mark.parametrize(
    "parameters",
    [*VARIANTS, {"learn_sigma": True}, {"time_embedding": "fourier"}],
    ids=str,
)
def test_parameters_are_counted_without_building(parameters):
    config, latent = LightningDiTConfig(**{**SMALL, "patch": 2}, **parameters), LatentShape(5, 6)
    assert config.parameters(latent, 7) == counted(LightningDiT, config, latent, 7)


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_presets_are_counted_without_building(preset):
    config, latent = LightningDiTConfig(preset=preset), LatentShape(32, 16)
    assert config.parameters(latent, 1000) == counted(LightningDiT, config, latent, 1000)


@pytest.mark.parametrize("parameters", [*VARIANTS, {"head_width": 16, "head_heads": 2}], ids=str)
def test_parameters_of_dit_dh_are_counted_without_building(parameters):
    config, latent = DiTDHConfig(**{**SMALL_DH, **parameters}, patch=2), LatentShape(5, 6)
    assert config.parameters(latent, 7) == counted(DiTDH, config, latent, 7)


@pytest.mark.parametrize(
    ("cls", "config"),
    [
        (LightningDiT, LightningDiTConfig(width=64, depth=4, heads=4, patch=1)),
        (LightningDiT, LightningDiTConfig(width=64, depth=4, heads=4, patch=1, mlp="gelu")),
        (
            DiTDH,
            DiTDHConfig(width=32, depth=4, heads=2, head_width=64, head_depth=2, head_heads=4),
        ),
    ],
)
def test_activations_match_what_autograd_saves(cls, config):
    """Against the storages autograd saves, weights apart: right within a factor of 1.5."""
    latent, batch = LatentShape(4, 8), 8
    model = as_if_trained(cls(config, latent, 10))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes() // tensor.element_size(), tensor)
        return tensor

    x = torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x, torch.full((batch,), 0.5), torch.zeros(batch, dtype=torch.int64))
    measured = sum(count for count, _ in kept.values()) / batch
    assert measured / 1.5 < config.activations(latent) < 1.5 * measured


def test_smoke_versions_are_small_and_accept_any_latents():
    stated = {"channels": 32, "side": 16, "attention": "xformers", "qk_norm": True}
    small = LightningDiTConfig(preset="XL/2", classes=1000, **stated).smoke()
    assert small.architecture == Architecture(2, 64, 4, 2)
    assert small.qk_norm
    assert small.attention == "sdpa"
    small.check_latent(LatentShape(5, 4))
    assert small.class_count(3) == 3
    small = DiTDHConfig(preset="XL", classes=0, **stated).smoke()
    assert small.architecture == HeadArchitecture(
        Architecture(2, 64, 4, 1), Architecture(2, 64, 4, 1)
    )
    small.check_latent(LatentShape(5, 4))
    assert not small.conditional


@pytest.mark.parametrize(
    "config",
    [LightningDiTConfig(preset="B/2"), LightningDiTConfig(**SMALL), DiTDHConfig(preset="S")],
)
def test_smoke_versions_are_valid_configs(config):
    small = config.smoke()
    assert type(config).model_validate(small.model_dump()) == small

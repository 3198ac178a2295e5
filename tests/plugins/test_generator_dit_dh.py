"""DiT-DH against its formulas, RAE's names and counts, and RAE's time."""

import pytest
import torch
from layouts.generator_formulas import dit_dh

from pae_framework.config import LatentShape
from pae_framework.layers import sincos_positions
from pae_generators.config_dh import DiTDHConfig
from pae_generators.dit_dh import DiTDH

LATENT = LatentShape(6, 4)
SMALL = {
    **{"depth": 2, "width": 16, "heads": 2},
    **{"head_depth": 2, "head_width": 24, "head_heads": 3},
}
NARROW_HEAD = {"head_width": 16, "head_heads": 2}


def small(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DiTDH(DiTDHConfig(**{**SMALL, **changes}), LATENT, 10)


def with_random_weights(**changes):
    model = small(**changes)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in ("pos_embed", "t_embedder.W"):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=random))
    return model.eval()


def inputs(batch=3):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 6, 4, 4, generator=random)
    return x, torch.rand(batch, generator=random), torch.arange(batch)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, NARROW_HEAD, {"qk_norm": True}, {"mlp": "gelu"}], ids=str)
def test_velocity_equals_the_formulas_in_raes_time(changes):
    model = with_random_weights(**changes)
    x, t, y = inputs()
    heads = (2, changes.get("head_heads", 3))
    expected = dit_dh(model.state_dict(), x, t, y, encoder_depth=2, heads=heads)
    assert expected.std() > 0.1
    torch.testing.assert_close(model.velocity(x, t, y).double(), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_for_callers_time_runs_from_noise_to_data():
    """RAE's network is asked at 1 - t, and its noise - data becomes data - noise."""
    model = with_random_weights()
    x, t, y = inputs()
    expected = -dit_dh(model.state_dict(), x, 1 - t, y, encoder_depth=2, heads=(2, 3))
    torch.testing.assert_close(model(x, t, y).double(), expected, rtol=0, atol=1e-5)
    kept = with_random_weights(time="noise_first")
    torch.testing.assert_close(kept(x, 1 - t, y), -model(x, t, y))


@pytest.mark.parametrize(("preset", "millions"), [("XL", 838.68), ("S", 196.46)])
def test_parameter_counts_equal_the_published_ones(preset, millions):
    """Counted for latents of 768 x 16 x 16 (DINOv2-B) and ImageNet's classes."""
    with torch.device("meta"):
        model = DiTDH(DiTDHConfig(preset=preset), LatentShape(768, 16), 1000)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


def test_names_and_shapes_are_those_of_the_released_files():
    """De 384 in 12 blocks of 6 heads, Dd 2048 in 2 of 16: F = 1024 and 5461, N = 256, C = 768."""
    with torch.device("meta"):
        state = DiTDH(DiTDHConfig(preset="S"), LatentShape(768, 16), 1000).state_dict()
    expected = {
        "pos_embed": (1, 256, 384),
        "s_embedder.proj.weight": (384, 768, 1, 1),
        "s_embedder.proj.bias": (384,),
        "x_embedder.proj.weight": (2048, 768, 1, 1),
        "x_embedder.proj.bias": (2048,),
        "s_projector.weight": (2048, 384),
        "s_projector.bias": (2048,),
        "t_embedder.W": (256,),
        "t_embedder.mlp.0.weight": (384, 512),
        "t_embedder.mlp.0.bias": (384,),
        "t_embedder.mlp.2.weight": (384, 384),
        "t_embedder.mlp.2.bias": (384,),
        "y_embedder.embedding_table.weight": (1001, 384),
        "enc_feat_rope.freqs_cos": (256, 64),
        "enc_feat_rope.freqs_sin": (256, 64),
        "dec_feat_rope.freqs_cos": (256, 128),
        "dec_feat_rope.freqs_sin": (256, 128),
        "final_layer.norm_final.weight": (2048,),
        "final_layer.linear.weight": (768, 2048),
        "final_layer.linear.bias": (768,),
        "final_layer.adaLN_modulation.1.weight": (4096, 2048),
        "final_layer.adaLN_modulation.1.bias": (4096,),
    }
    for index, (width, hidden) in enumerate([(384, 1024)] * 12 + [(2048, 5461)] * 2):
        expected |= {
            f"blocks.{index}.{name}": shape
            for name, shape in {
                "norm1.weight": (width,),
                "norm2.weight": (width,),
                "attn.qkv.weight": (3 * width, width),
                "attn.qkv.bias": (3 * width,),
                "attn.proj.weight": (width, width),
                "attn.proj.bias": (width,),
                "mlp.w12.weight": (2 * hidden, width),
                "mlp.w12.bias": (2 * hidden,),
                "mlp.w3.weight": (width, hidden),
                "mlp.w3.bias": (width,),
                "adaLN_modulation.1.weight": (6 * width, width),
                "adaLN_modulation.1.bias": (6 * width,),
            }.items()
        }
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def test_encoder_and_head_of_equal_width_have_no_projector():
    assert not [name for name in small(**NARROW_HEAD).state_dict() if "s_projector" in name]


def test_a_new_network_returns_zero():
    assert (small()(*inputs()) == 0).all()


def test_frequencies_and_positions_are_not_trained():
    model = small()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"pos_embed", "t_embedder.W"}
    assert torch.equal(model.pos_embed, sincos_positions(4, 16))


def test_initial_weights_have_the_originals_distributions():
    """Torch's own for linear layers, bound 1 / sqrt(in); Xavier for the patches' convolutions."""
    state = small(width=256, head_width=256, head_heads=2, depth=1).state_dict()
    for key, bound in (
        ("blocks.0.attn.qkv.weight", 256**-0.5),
        ("blocks.1.mlp.w3.weight", 682**-0.5),
        ("s_embedder.proj.weight", (6 / (6 + 256)) ** 0.5),
        ("x_embedder.proj.weight", (6 / (6 + 256)) ** 0.5),
    ):
        assert state[key].abs().max() <= bound
        assert state[key].std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert state["t_embedder.mlp.0.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert state["y_embedder.embedding_table.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert state["t_embedder.W"].std().item() == pytest.approx(1, rel=0.15)


@torch.no_grad()
def test_the_label_reaches_the_head_only_through_the_encoder():
    """With an encoder whose gates are shut, labels change nothing; time still does."""
    model = with_random_weights()
    for block in model.blocks[:2]:
        block.adaLN_modulation[1].weight.zero_()
        block.adaLN_modulation[1].bias.zero_()
    x, t, y = inputs()
    assert torch.equal(model(x, t, y), model(x, t, y + 1))
    assert not torch.allclose(model(x, t, y), model(x, 1 - t, y), atol=1e-3)


@torch.no_grad()
def test_patches_of_two():
    model = with_random_weights(patch=2)
    x, t, y = inputs()
    assert model(x, t, y).shape == x.shape
    assert model.pos_embed.shape == (1, 4, 16)


@torch.no_grad()
def test_an_unconditional_network_ignores_labels():
    model = with_random_weights(classes=0)
    x, t, y = inputs()
    assert not model.conditional
    assert torch.equal(model(x, t, y), model(x, t, torch.full_like(y, 10)))

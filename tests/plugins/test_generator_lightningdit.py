"""LightningDiT against the reference's numbers, counts and initial state."""

import json
from pathlib import Path

import pytest
import torch
from layouts.generator_formulas import lightningdit
from safetensors import safe_open

from pae_framework.config import LatentShape
from pae_framework.errors import DataError, UsageError
from pae_framework.flow.flow_settings import Guidance
from pae_framework.flow.guidance import guided
from pae_framework.flow.path import time_grid
from pae_framework.flow.solvers import euler
from pae_framework.testing.generators import check_generator
from pae_generators.blocks import SwiGLU
from pae_generators.config import LightningDiTConfig
from pae_generators.embeddings import TimeEmbedding
from pae_generators.lightningdit import LightningDiT

GOLDEN = Path(__file__).parents[1] / "golden" / "lightningdit_tiny.safetensors"
IMAGENET_LATENT = LatentShape(channels=32, side=16)


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def reference(golden):
    """Our network, built as the file's metadata say, with the reference's weights."""
    with safe_open(GOLDEN, "pt") as file:
        told = json.loads(file.metadata()["config"])
    config = LightningDiTConfig(
        width=told["hidden_size"],
        depth=told["depth"],
        heads=told["num_heads"],
        patch=told["patch_size"],
    )
    latent = LatentShape(told["in_channels"], told["input_size"])
    model = LightningDiT(config, latent, told["num_classes"]).eval()
    prefix = "state."
    state = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    for key in ("pos_embed", "feat_rope.freqs_cos", "feat_rope.freqs_sin"):
        ours = model.state_dict()[key]
        torch.testing.assert_close(ours, state[key], rtol=0, atol=1e-6)
    model.load_state_dict(state, strict=True)
    return model


@torch.no_grad()
def test_velocity_equals_the_reference(golden, reference):
    velocity = reference(golden["in.x"], golden["in.t"], golden["in.y"])
    torch.testing.assert_close(velocity, golden["out.velocity"], rtol=0, atol=1e-5)


GUIDANCE = Guidance(scale=4.0, channels="first_three", interval=(0.3, 1.0))


@torch.no_grad()
@pytest.mark.parametrize("t", [0.1, 0.5])
def test_guided_velocity_equals_the_reference(golden, reference, t):
    field = guided(reference, golden["in.labels"], GUIDANCE)
    expected = golden[f"out.guided_3ch_t{t}"]
    torch.testing.assert_close(field(golden["in.z"], torch.tensor(t)), expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("guidance", ["guided", "unguided"])
@pytest.mark.parametrize(("named", "shift"), [("0.0", 1.0), ("0.3", 0.3)])
def test_samples_equal_the_reference(golden, reference, named, shift, guidance):
    """An 11-point grid is 10 steps; the reference writes 0.0 for no shift."""
    scale = GUIDANCE if guidance == "guided" else Guidance()
    field = guided(reference, golden["in.labels"], scale)
    end = euler(field, golden["in.z"], time_grid(10, shift))
    expected = golden[f"out.euler11_shift{named}_{guidance}"]
    torch.testing.assert_close(end, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("preset", "qk_norm", "millions"),
    [
        ("B/1", False, 130.56),
        ("XL/1", False, 675.257),
        ("XL/1", True, 675.261),
        ("1p0B/1", False, 1029.40),
        ("1p6B/1", False, 1631.77),
    ],
)
def test_parameter_counts_equal_the_published_ones(preset, qk_norm, millions):
    """Counted for ImageNet at 256 px with 32 channels, the fixed position table included."""
    with torch.device("meta"):
        config = LightningDiTConfig(preset=preset, qk_norm=qk_norm)
        model = LightningDiT(config, IMAGENET_LATENT, 1000)
    count = sum(parameter.numel() for parameter in model.parameters())
    digits = len(str(millions).partition(".")[2])
    assert round(count / 1e6, max(digits, 2)) == millions


# --- the initial state and the rest of the contract ---------------------------------------------

SMALL = {"width": 32, "depth": 2, "heads": 4, "patch": 2, "qk_norm": True}


def small(seed=0, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LightningDiT(LightningDiTConfig(**{**SMALL, **changes}), LatentShape(4, 8), 10)


def awake(**changes):
    """A small network whose zero-initialized layers are not zero."""
    model = small(**changes)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=random))
    return model.eval()


def inputs(batch=3):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 4, 8, 8, generator=random)
    return x, torch.rand(batch, generator=random), torch.arange(batch)


def test_a_new_network_returns_zero():
    assert (small()(*inputs()) == 0).all()


def test_first_gradients_reach_only_the_last_layer():
    """adaLN-Zero: the output layer is 0, so nothing before it has a gradient yet."""
    model = small()
    model(*inputs()).sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"final_layer.linear.weight", "final_layer.linear.bias"}


def test_fixed_positions_are_not_trained():
    frozen = {name for name, p in small().named_parameters() if not p.requires_grad}
    assert frozen == {"pos_embed"}


def test_initial_weights_have_the_originals_distributions():
    state = small(width=256, heads=8).state_dict()
    # Xavier uniform: bound sqrt(6 / (in + out)), so a deviation of bound / sqrt(3).
    for key, fan in (
        ("blocks.0.attn.qkv.weight", 256 + 3 * 256),
        ("blocks.1.mlp.w3.weight", 682 + 256),
        ("x_embedder.proj.weight", 4 * 2 * 2 + 256),
    ):
        bound = (6 / fan) ** 0.5
        assert state[key].abs().max() <= bound
        assert state[key].std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    for key in (
        "t_embedder.mlp.0.weight",
        "t_embedder.mlp.2.weight",
        "y_embedder.embedding_table.weight",
    ):
        assert state[key].std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(value.any() for key, value in state.items() if key.endswith(".bias"))


@pytest.mark.parametrize(
    ("width", "hidden"), [(768, 2048), (1024, 2730), (1152, 3072), (1536, 4096), (1792, 4778)]
)
def test_gated_mlp_is_two_thirds_of_four_widths_rounded_down(width, hidden):
    with torch.device("meta"):
        assert SwiGLU(width).w3.in_features == hidden


@torch.no_grad()
def test_velocity_depends_on_time_label_and_position():
    model = awake()
    x, t, y = inputs()
    v = model(x, t, y)
    assert v.shape == x.shape
    assert not torch.allclose(v, model(x, 1 - t, y), atol=1e-4)
    assert not torch.allclose(v, model(x, t, y + 1), atol=1e-4)
    assert not torch.allclose(v.flip(-1), model(x.flip(-1), t, y), atol=1e-4)


@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32():
    """bfloat16 has 8 bits: an error of some per cent of the largest value, not more."""
    model = awake()
    full = model(*inputs())
    with torch.autocast("cpu", torch.bfloat16):
        half = model(*inputs())
    assert (half.float() - full).abs().max() < 0.05 * full.abs().max()


def test_query_and_key_norms_exist_only_with_qk_norm():
    """A head is 32 / 4 = 8 wide; every other key is the same."""
    with_norm, without = (small(qk_norm=on).state_dict() for on in (True, False))
    extra = with_norm.keys() - without.keys()
    assert extra == {f"blocks.{i}.attn.{n}_norm.weight" for i in (0, 1) for n in "qk"}
    assert all(with_norm[key].shape == (8,) for key in extra)


@torch.no_grad()
@pytest.mark.parametrize("qk_norm", [True, False])
def test_only_normalized_queries_and_keys_are_independent_of_their_scale(qk_norm):
    model = awake(qk_norm=qk_norm)
    attention = model.blocks[0].attn
    tokens = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(2))
    rotation = model.feat_rope(tokens)
    before = attention(tokens, rotation)
    attention.qkv.weight[:64] *= 10  # rows of q and k
    attention.qkv.bias[:64] *= 10
    assert torch.allclose(attention(tokens, rotation), before, atol=1e-4) == qk_norm


@torch.no_grad()
def test_time_embedding_starts_with_cosines_of_raw_t():
    """At t = 0 cosines are 1 and sines 0; at t = 1 angles go from 1 to 10000^(-127/128)."""
    embedding = TimeEmbedding(8)
    embedding.mlp = torch.nn.Identity()
    code = embedding(torch.tensor([0.0, 1.0]))
    assert torch.equal(code[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    assert code[1, 0].item() == pytest.approx(0.5403023)  # cos 1
    assert code[1, 255].item() == pytest.approx(10_000 ** (-127 / 128), rel=1e-5)


# --- the flags ------------------------------------------------------------------------------------

FLAGS = {
    "as released": {"qk_norm": False},
    "with q/k norm": {},
    "gelu": {"mlp": "gelu"},
    "LayerNorm": {"norm": "layer"},
    "LayerNorm without q/k norm": {"norm": "layer", "qk_norm": False},
    "without rope": {"rope": False},
    "without absolute positions": {"absolute_positions": False},
    "without shift": {"adaln_shift": False},
    "learn sigma": {"learn_sigma": True},
    "RAE's times": {"time_embedding": "fourier"},
    "patch 1": {"patch": 1},
    "patch 4": {"patch": 4},
    "a plain DiT": {"mlp": "gelu", "norm": "layer", "rope": False, "qk_norm": False},
}


def with_random_weights(**changes):
    """A small network none of whose weights is special."""
    model = small(**changes)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in ("pos_embed", "t_embedder.W"):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=random))
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_velocity_equals_the_formulas(flags):
    model = with_random_weights(**flags)
    x, t, y = inputs()
    expected = lightningdit(model.state_dict(), x, t, y, heads=4, patch=model.patch)
    assert expected.std() > 0.1
    torch.testing.assert_close(model(x, t, y).double(), expected, rtol=0, atol=1e-5)


def test_a_plain_dit_has_only_names_of_dit():
    names = {name for name in small(**FLAGS["a plain DiT"]).state_dict() if "blocks.1" not in name}
    block = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    layers = ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2", "final_layer.linear"]
    layers += ["final_layer.adaLN_modulation.1", *(f"blocks.0.{part}" for part in block)]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert names == expected | {"pos_embed", "y_embedder.embedding_table.weight"}


def test_learn_sigma_doubles_the_output_of_the_last_layer():
    """4 channels in patches of 2 x 2: 16 numbers a token, and as many for sigma."""
    assert small(learn_sigma=True).final_layer.linear.out_features == 2 * 16
    assert small().final_layer.linear.out_features == 16


@torch.no_grad()
def test_an_unconditional_network_has_only_the_null_label_and_ignores_labels():
    model = with_random_weights(classes=0)
    x, t, y = inputs()
    assert model.y_embedder.embedding_table.weight.shape == (1, 32)
    assert not model.conditional
    assert small().conditional
    assert torch.equal(model(x, t, y), model(x, t, torch.full_like(y, 10)))
    null = torch.zeros_like(y)
    expected = lightningdit(model.state_dict(), x, t, null, heads=4, patch=2)
    torch.testing.assert_close(model(x, t, y).double(), expected, rtol=0, atol=1e-5)


# --- the direction of time ------------------------------------------------------------------------


@torch.no_grad()
def test_data_first_reverses_time_and_velocity():
    """Its own velocity is noise - data at 1 - t; ours is its negative."""
    ours, theirs = with_random_weights(), with_random_weights(time="data_first")
    x, t, y = inputs()
    torch.testing.assert_close(theirs(x, t, y), -ours(x, 1 - t, y))
    torch.testing.assert_close(theirs.velocity(x, t, y), ours(x, t, y))


# --- latents and classes that do not fit ----------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "found"), [((3, 5, 8, 8), "5 x 8 x 8"), ((3, 4, 16, 16), "4 x 16 x 16")]
)
def test_latents_of_another_shape_are_rejected(shape, found):
    with pytest.raises(DataError, match=f"4 x 8 x 8.*{found}"):
        small()(torch.zeros(shape), torch.zeros(3), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": 1000},
            r"`classes` is 1000\b.*\b10 classes\b.* 10, null, or 0\b",
        ),
        ({"channels": 32}, r"`channels` is 32\b.*4 x 8 x 8"),
        ({"patch": 3}, "`patch` 3 .*4 x 8 x 8"),
    ],
)
def test_configs_for_other_data_are_rejected(changes, message):
    with pytest.raises(UsageError, match=message):
        small(**changes)


# --- what runs on other machines and in other types -----------------------------------------------


@torch.no_grad()
def test_a_bfloat16_rotary_table_adds_no_error_to_bfloat16():
    """Under autocast, against the same network with its queries and keys turned in float32."""
    model = with_random_weights()
    full = model(*inputs())

    def error():
        with torch.autocast("cpu", torch.bfloat16):
            return (model(*inputs()).float() - full).square().mean().sqrt()

    ours = error()
    rope = model.feat_rope
    rope.forward = lambda _: (rope.freqs_cos[:, None], rope.freqs_sin[:, None])
    assert ours < 1.1 * error()


@torch.no_grad()
def test_the_network_compiles_to_one_graph():
    """What torch.compile sees is one graph, also under autocast; it computes the same."""
    model = with_random_weights()
    graph = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(graph(*inputs()), model(*inputs()))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(graph(*inputs()), model(*inputs()))


@torch.no_grad()
def test_bfloat16_weights_and_latents_stay_near_float32():
    """Weights and latents in bfloat16, as for sampling in little memory; times stay float32."""
    model = with_random_weights()
    x, t, y = inputs()
    full = model(x, t, y)
    half = model.bfloat16()(x.bfloat16(), t, y)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()


# --- the contract -------------------------------------------------------------------------------


def test_the_contract_rejects_a_wrong_conditional_attribute():
    config = LightningDiTConfig(**SMALL)
    model = LightningDiT(config, LatentShape(4, 8), 10)
    check_generator(model, config)
    model.conditional = False
    with pytest.raises(AssertionError, match="depends on the label, but `conditional` is False"):
        check_generator(model, config)

"""Official weight files: reading, checks, descriptions of other networks, export."""

import pytest
import torch

from pae_framework.config import LatentShape
from pae_framework.errors import CheckpointError
from pae_framework.tensor_files import load_state, save_tensors
from pae_framework.weight_files import read_checkpoint
from pae_generators.config import LightningDiTConfig
from pae_generators.config_dh import DiTDHConfig
from pae_generators.dit_dh import DiTDH
from pae_generators.lightningdit import LightningDiT
from pae_generators.official import describe

LATENT = LatentShape(4, 4)
SMALL = {"width": 16, "depth": 2, "heads": 2, "patch": 1}
SMALL_DH = {
    **{"depth": 2, "width": 16, "heads": 2},
    **{"head_depth": 1, "head_width": 24, "head_heads": 3},
}


def lightningdit(seed=0, latent=LATENT, classes=10, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LightningDiT(LightningDiTConfig(**{**SMALL, **changes}), latent, classes)


def dit_dh(seed=0, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DiTDH(DiTDHConfig(**{**SMALL_DH, **changes}), LATENT, 10)


def same(model, tensors):
    state = model.state_dict()
    return state.keys() == tensors.keys() and all(torch.equal(state[k], tensors[k]) for k in state)


@pytest.mark.parametrize("make", [lightningdit, dit_dh])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("entry", ["ema", "model", None])
def test_weights_load_from_every_kind_of_file(tmp_path, make, prefix, entry):
    """LightningDiT's files hold `model`, `ema`, `opt`, `config`; the average comes first."""
    source, model = make(seed=1), make(seed=2)
    weights = {prefix + name: value for name, value in source.to_official().items()}
    content = weights if entry is None else {entry: weights, "opt": {"state": {}}, "step": 3}
    if entry == "ema":
        content["model"] = {prefix + name: value for name, value in model.to_official().items()}
    torch.save(content, tmp_path / "0000003.pt")
    tensors = read_checkpoint(tmp_path / "0000003.pt", "average")
    load_state(model, model.from_official(tensors), "0000003.pt")
    assert same(model, source.state_dict())


@pytest.mark.parametrize("make", [lightningdit, dit_dh])
def test_exported_weights_load_again(tmp_path, make):
    source, model = make(seed=1), make(seed=2)
    save_tensors(source.to_official(), tmp_path / "weights.safetensors")
    tensors = read_checkpoint(tmp_path / "weights.safetensors")
    load_state(model, model.from_official(tensors), "weights.safetensors")
    assert same(model, source.state_dict())


def test_half_precision_is_converted_to_float32():
    halves = {name: value.bfloat16() for name, value in lightningdit(seed=1).to_official().items()}
    found = lightningdit().from_official(halves)
    assert {value.dtype for value in found.values()} == {torch.float32}
    key = "blocks.0.attn.qkv.weight"
    assert torch.equal(found[key], halves[key].float())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonfinite_weights_are_named(value):
    tensors = lightningdit().to_official()
    tensors["blocks.1.mlp.w3.bias"] = torch.full((16,), value)
    with pytest.raises(CheckpointError, match=r"not finite: blocks\.1\.mlp\.w3\.bias"):
        lightningdit().from_official(tensors)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"latent": LatentShape(8, 4)}, "for latents of 8 x 4 x 4"),
        ({"latent": LatentShape(4, 8)}, "for latents of 4 x 8 x 8"),
        ({"classes": 20}, "20 classes"),
        ({"classes": 0}, "no labels"),
        ({"depth": 3}, "3 blocks of width 16 and 2 heads"),
        ({"width": 32}, "2 blocks of width 32 and 2 heads"),
        ({"heads": 4}, "2 blocks of width 16 and 4 heads"),
        ({"patch": 2}, "and patch 2"),
        ({"qk_norm": True}, "qk_norm: true"),
        ({"mlp": "gelu"}, "mlp: gelu"),
        ({"norm": "layer"}, "norm: layer"),
        ({"rope": False}, "rope: false"),
        ({"absolute_positions": False}, "absolute_positions: false"),
        ({"adaln_shift": False}, "adaln_shift: false"),
    ],
    ids=str,
)
def test_weights_of_another_network_are_described(changes, difference):
    """What the message says of the file, it does not say of the recipe's network."""
    with pytest.raises(CheckpointError) as error:
        lightningdit().from_official(lightningdit(**changes).to_official())
    file, network = str(error.value).split("; the recipe's network is ")
    assert difference in file
    assert difference not in network


@pytest.mark.parametrize(
    "preset", ["B/1", "B/2", "L/2", "XL/1", "XL/2", "1p0B/1", "1p0B/2", "1p6B/1", "1p6B/2"]
)
@pytest.mark.parametrize("rope", [True, False])
def test_presets_are_recognized(preset, rope):
    with torch.device("meta"):
        config = LightningDiTConfig(preset=preset, rope=rope)
        state = LightningDiT(config, LatentShape(32, 16), 1000).state_dict()
    text = describe(state)
    assert text.startswith(f"LightningDiT {preset}, for latents of 32 x 16 x 16 and 1000 classes")


@pytest.mark.parametrize("preset", ["S", "XL"])
def test_presets_of_dit_dh_are_recognized(preset):
    with torch.device("meta"):
        model = DiTDH(DiTDHConfig(preset=preset), LatentShape(768, 16), 1000)
    text = describe(model.state_dict())
    assert text.startswith(f"DiT-DH {preset}, for latents of 768 x 16 x 16 and 1000 classes")


def test_weights_of_the_other_generator_are_recognized():
    with pytest.raises(CheckpointError, match="weights of a DiT-DH of 2 blocks"):
        lightningdit().from_official(dit_dh().to_official())
    with pytest.raises(CheckpointError, match="weights of a LightningDiT of 2 blocks"):
        dit_dh().from_official(lightningdit().to_official())


def test_encoder_and_head_blocks_of_equal_width_are_counted_together():
    text = describe(dit_dh(head_width=16, head_heads=4).state_dict())
    assert "a DiT-DH of 3 blocks of width 16" in text


def test_unrelated_weights_are_rejected():
    with pytest.raises(CheckpointError, match="another kind of network"):
        lightningdit().from_official({"encoder.weight": torch.zeros(2)})


@pytest.mark.parametrize("make", [lightningdit, dit_dh])
def test_a_tensor_of_any_other_shape_is_another_network(make):
    """No shape breaks the description of the network that a file holds."""
    model = make()
    tensors = model.to_official()
    for name in tensors:
        for shape in ((), (0,), (1,), (1, 1), (0, 0, 0, 0), (2, 3, 5, 7, 1)):
            if tensors[name].shape != shape:
                with pytest.raises(CheckpointError, match="of another shape"):
                    model.from_official({**tensors, name: torch.zeros(shape)})


@pytest.mark.parametrize("make", [lightningdit, dit_dh])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int64, torch.complex64])
def test_weights_that_are_no_real_numbers_do_not_fit(make, dtype):
    model = make()
    tensors = model.to_official()
    name = "blocks.0.attn.qkv.weight"
    with pytest.raises(CheckpointError, match=rf"{name} is {dtype}"):
        model.from_official({**tensors, name: torch.ones(tensors[name].shape).to(dtype)})


def test_numbers_beyond_float32_are_not_finite():
    model = lightningdit()
    tensors = {name: value.double() for name, value in model.to_official().items()}
    tensors["x_embedder.proj.bias"][0] = 1e300
    with pytest.raises(CheckpointError, match=r"finite.*x_embedder\.proj\.bias"):
        model.from_official(tensors)

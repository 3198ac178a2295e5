"""Autoencoders that Diffusers wrote, with random weights, read as tokenizers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pae_framework.build import META
from pae_framework.config import LatentShape
from pae_framework.errors import CheckpointError, DataError
from pae_framework.hub import HubFile
from pae_framework.plugins import load_registry
from pae_framework.recipe.components import TokenizerComponent
from pae_framework.runs.plan import component_identity
from pae_tokenizers.diffusers_config import (
    DEFAULTS,
    KNOWN,
    WEIGHTS,
    WITHOUT_EFFECT,
    DiffusersVAEConfig,
)
from pae_tokenizers.diffusers_vae import DiffusersVAE

diffusers = pytest.importorskip("diffusers")

SIDE = 16
KL = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "latent_channels": 3,
    "scaling_factor": 0.5,
    "shift_factor": 0.25,
}
RAE = {
    "encoder_type": "mae",
    "encoder_hidden_size": 64,
    "encoder_patch_size": 16,
    "encoder_num_hidden_layers": 1,
    "encoder_input_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
    "patch_size": 8,
    "scaling_factor": 2.0,
    "latents_std": [3.0],
}


def saved(folder: Path, **changes: Any) -> Any:
    torch.manual_seed(0)
    network = diffusers.AutoencoderKL(**{**KL, **changes}).eval()
    network.save_pretrained(folder)
    return network


def loaded(folder: Path, side: int = SIDE, **changes: Any) -> DiffusersVAE:
    tokenizer = DiffusersVAE(DiffusersVAEConfig(model=str(folder), **changes), side)
    tokenizer.load_pretrained()
    return tokenizer.eval()


def images(side: int = SIDE) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_latents_are_shifted_and_scaled_means(tmp_path: Path) -> None:
    network, x = saved(tmp_path), images()
    mean = network.encode(2 * x - 1).latent_dist.mean
    tokenizer = loaded(tmp_path)
    z = tokenizer.encode(x).latents
    torch.testing.assert_close(z, (mean - 0.25) * 0.5)
    torch.testing.assert_close(tokenizer.decode(z), (network.decode(mean).sample + 1) / 2)
    assert tokenizer.latent == LatentShape(*z.shape[1:3])


@torch.no_grad()
def test_statistics_of_channels_replace_the_shift(tmp_path: Path) -> None:
    statistics = {"latents_mean": [1.0, 2.0, 3.0], "latents_std": [1.0, 2.0, 4.0]}
    network, x = saved(tmp_path, **statistics), images()
    mean = network.encode(2 * x - 1).latent_dist.mean
    shift, std = torch.tensor([1.0, 2, 3]).view(3, 1, 1), torch.tensor([1.0, 2, 4]).view(3, 1, 1)
    tokenizer = loaded(tmp_path)
    z = tokenizer.encode(x).latents
    torch.testing.assert_close(z, (mean - shift) * 0.5 / std)
    torch.testing.assert_close(tokenizer.decode(z), (network.decode(mean).sample + 1) / 2)


@torch.no_grad()
def test_a_generator_samples_the_posterior(tmp_path: Path) -> None:
    network, x = saved(tmp_path), images()
    std, tokenizer = network.encode(2 * x - 1).latent_dist.std, loaded(tmp_path)
    drawn = [tokenizer.encode(x, torch.Generator().manual_seed(seed)).latents for seed in (0, 0, 1)]
    noise = (drawn[0] - tokenizer.encode(x).latents) / (0.5 * std)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert 0.8 < noise.std() < 1.2


@torch.no_grad()
def test_a_representation_autoencoder_normalizes_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = diffusers.AutoencoderRAE(**RAE).eval()
    network.save_pretrained(tmp_path)
    tokenizer, x = loaded(tmp_path), images()
    assert tokenizer.latent == LatentShape(64, 2)
    z = tokenizer.encode(x).latents
    torch.testing.assert_close(z, network.encode(x).latent)
    torch.testing.assert_close(tokenizer.decode(z), network.decode(z).sample)
    with pytest.raises(ValueError, match="16"):
        DiffusersVAEConfig(model=str(tmp_path)).latent_shape(32)


@torch.no_grad()
def test_weights_may_be_a_torch_file_in_a_subfolder(tmp_path: Path) -> None:
    network, x = saved(tmp_path / "vae"), images()
    (tmp_path / "vae" / WEIGHTS[0]).unlink()
    network.save_pretrained(tmp_path / "vae", safe_serialization=False)
    z = loaded(tmp_path, subfolder="vae").encode(x).latents
    torch.testing.assert_close(z, loaded(tmp_path / "vae").encode(x).latents)


def test_the_known_model_needs_no_file() -> None:
    model = "stabilityai/sd-vae-ft-ema"
    known = DiffusersVAEConfig(model=model)
    assert known.latent_shape(256) == LatentShape(4, 32)
    with META:
        network = DiffusersVAE(known, 256)
    assert sum(p.numel() for p in network.parameters()) == 83_653_863  # of the published file
    small = known.smoke()
    assert small.latent_shape(64) == known.latent_shape(64)
    assert small.weights == "none"
    assert set(KNOWN) == set(known.known_models())


def identity(folder: Path) -> dict[str, Any]:
    registry = load_registry()
    written = {"use": "diffusers_vae", "model": str(folder)}
    component = TokenizerComponent.model_validate(written, context={"registry": registry})
    return component_identity(component, registry)


def test_the_fingerprint_is_of_contents(tmp_path: Path) -> None:
    for name, changes in (("a", {}), ("b", {}), ("c", {"scaling_factor": 0.7})):
        saved(tmp_path / name, **changes)
    assert identity(tmp_path / "a") == identity(tmp_path / "b")
    assert identity(tmp_path / "a") != identity(tmp_path / "c")
    torch.manual_seed(1)
    diffusers.AutoencoderKL(**KL).save_pretrained(tmp_path / "b")
    assert identity(tmp_path / "a") != identity(tmp_path / "b")


def test_diffusers_defaults_are_known() -> None:
    for name, defaults in DEFAULTS.items():
        stated = inspect.signature(getattr(diffusers, name).__init__).parameters
        ours = {key: _tuples(value) for key, value in defaults.items()}
        assert ours == {key: stated[key].default for key in defaults}
        assert stated.keys() - defaults.keys() - {"self"} <= WITHOUT_EFFECT


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def test_the_fingerprint_stays_when_a_known_model_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": "0.4.2",
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 256,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    file = tmp_path / "config.json"
    monkeypatch.setattr(HubFile, "cached", lambda self: file if file.is_file() else None)
    known = DiffusersVAEConfig(model="stabilityai/sd-vae-ft-ema")
    before = known.hashed()
    file.write_text(json.dumps(published))
    assert known.hashed() == before
    with META:
        DiffusersVAE(known, 256)
    file.write_text(json.dumps({**published, "act_fn": "relu"}))
    assert known.hashed() != before


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"_diffusers_version": "9.9", "_name_or_path": "elsewhere"}, True),
        ({"sample_size": 512, "force_upcast": False}, True),
        ({"latents_mean": None, "in_channels": 3, "use_quant_conv": True}, True),
        ({"act_fn": "relu"}, False),
        ({"shift_factor": None}, False),
        ({"mid_block_add_attention": False}, False),
        ({"of_a_later_version": 1}, False),
    ],
    ids=["private", "pipeline", "defaults", "network", "scale", "attention", "unknown"],
)
def test_the_fingerprint_is_of_what_changes_latents(
    tmp_path: Path, changes: dict[str, Any], same: bool
) -> None:
    file = tmp_path / "config.json"
    stated = {"_class_name": "AutoencoderKL", **KL, "_diffusers_version": "0.1"}
    file.write_text(json.dumps(stated))
    config = DiffusersVAEConfig(model=str(tmp_path))
    before = config.hashed()
    file.write_text(json.dumps({**stated, **changes}))
    assert (config.hashed() == before) is same


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_num_groups": 32},
        {"act_fn": "none"},
        {"down_block_types": ["Unknown"] * 2},
        {"layers_per_block": "two"},
        {"scaling_factor": None},
        {"shift_factor": "none"},
        {"latents_mean": [1.0, 2.0]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_diffusers_refuses_is_one_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"_class_name": "AutoencoderKL", **KL, **changes}))
    with META, pytest.raises(CheckpointError, match=str(file)):
        DiffusersVAE(DiffusersVAEConfig(model=str(tmp_path)), SIDE)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", None),
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", json.dumps({"_class_name": "UNet2DModel"})),
        ("config.json", json.dumps({"_class_name": "AutoencoderKL", "latent_channels": "four"})),
    ],
)
def test_a_bad_configuration_is_one_error(tmp_path: Path, file: str, content: str | None) -> None:
    saved(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path)):
        DiffusersVAEConfig(model=str(tmp_path)).latent_shape(SIDE)


@pytest.mark.parametrize("damage", ["absent", "cut off", "other shapes", "weights lack"])
def test_bad_weights_are_one_error(tmp_path: Path, damage: str) -> None:
    network = saved(tmp_path)
    file = tmp_path / WEIGHTS[0]
    if damage == "absent":
        file.unlink()
        assert WEIGHTS[0] in (DiffusersVAEConfig(model=str(tmp_path)).missing() or "")
    elif damage == "cut off":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "other shapes":
        diffusers.AutoencoderKL(**{**KL, "latent_channels": 5}).save_pretrained(tmp_path / "other")
        file.write_bytes((tmp_path / "other" / WEIGHTS[0]).read_bytes())
    else:
        del network.quant_conv
        network.save_pretrained(tmp_path)
    with pytest.raises((DataError, CheckpointError), match=str(tmp_path)):
        loaded(tmp_path)


@pytest.mark.parametrize("model", ["art/vae", "./art/vae", "art"])
def test_a_local_folder_without_weights_is_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """``art/vae`` could also be a name of the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HubFile, "fetch", lambda remote: pytest.fail(f"downloads {remote}"))
    saved(Path(model))
    Path(model, WEIGHTS[0]).unlink()
    config = DiffusersVAEConfig(model=model)
    assert f"no {WEIGHTS[0]} in {Path(model)}" in (config.missing() or "")
    assert config.files() == {"model": Path(model, WEIGHTS[0])}
    assert config.fetch() is None


def test_a_model_of_the_hub_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAE_OFFLINE", "1")
    known = DiffusersVAEConfig(model="stabilityai/sd-vae-ft-ema")
    assert "pae fetch" in (known.missing() or "")
    with pytest.raises(DataError, match="sd-vae-ft-ema"):
        known.fetch()
    with pytest.raises(ValueError, match="someone/vae"):
        DiffusersVAEConfig(model="someone/vae").latent_shape(SIDE)


def test_the_configuration_is_downloaded_before_the_recipe_is_read() -> None:
    for subfolder, name in ((None, "config.json"), ("vae", "vae/config.json")):
        with pytest.raises(ValueError, match=f"hf download someone/vae {name}"):
            DiffusersVAEConfig(model="someone/vae", subfolder=subfolder).latent_shape(SIDE)


@pytest.mark.parametrize(
    ("here", "offered", "downloaded"),
    [
        ((), ("config.json", *WEIGHTS), {"config.json", WEIGHTS[0]}),
        ((), ("config.json", WEIGHTS[1]), {"config.json", WEIGHTS[1]}),
        ((WEIGHTS[0],), ("config.json", *WEIGHTS), {"config.json"}),
        ((WEIGHTS[1],), ("config.json", *WEIGHTS), {"config.json"}),
        (("config.json",), ("config.json", *WEIGHTS), {WEIGHTS[0]}),
        (("config.json", WEIGHTS[1]), (), set()),
    ],
)
def test_each_missing_file_is_downloaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    here: tuple[str, ...],
    offered: tuple[str, ...],
    downloaded: set[str],
) -> None:
    for name in here:
        (tmp_path / name).write_text("")

    def cached(remote: HubFile) -> Path | None:
        path = tmp_path / remote.name
        return path if path.is_file() else None

    def fetch(remote: HubFile) -> Path:
        if (found := cached(remote)) is not None:
            return found
        if remote.name not in offered:
            raise OSError(f"no {remote.name}")
        (tmp_path / remote.name).write_text("")
        return tmp_path / remote.name

    monkeypatch.delenv("PAE_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(HubFile, "cached", cached)
    monkeypatch.setattr(HubFile, "fetch", fetch)
    config = DiffusersVAEConfig(model="stabilityai/sd-vae-ft-ema")
    assert (config.missing() is None) is (not downloaded)
    config.fetch()
    assert {file.name for file in tmp_path.iterdir()} - set(here) == downloaded
    assert config.missing() is None


def test_a_small_network_has_no_weights() -> None:
    with pytest.raises(ValueError, match="none"):
        DiffusersVAEConfig(model="stabilityai/sd-vae-ft-ema", small=True)

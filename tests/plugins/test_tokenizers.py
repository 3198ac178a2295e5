"""Tokenizers of other projects: TorchScript files and folders of latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torchscript_fakes import CHANNELS, PATCH, save_torchscript, write_torchscript

from pae_framework.config import LatentShape
from pae_framework.data.latent_dataset import shard_name, write_shard
from pae_framework.errors import CheckpointError, DataError, UsageError
from pae_framework.execution.probe import probe_tokenizer_component
from pae_framework.plugins import load_registry
from pae_framework.recipe.components import TokenizerComponent
from pae_tokenizers.config import LatentsConfig, TorchScriptConfig
from pae_tokenizers.torchscript import TorchScriptTokenizer

SIDE = 16


def config(folder: Path, **changes: Any) -> TorchScriptConfig:
    files = {"encode": str(folder / "encode.pt"), "decode": str(folder / "decode.pt")}
    return TorchScriptConfig(**{**files, "channels": CHANNELS, "downsampling": PATCH, **changes})


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


class TestTorchScript:
    def test_images_are_signed_and_latents_as_in_the_files(self, tmp_path: Path) -> None:
        encoder, decoder = write_torchscript(tmp_path)
        tokenizer, x = TorchScriptTokenizer(config(tmp_path), SIDE), images()
        z = tokenizer.encode(x).latents
        torch.testing.assert_close(z, encoder(2 * x - 1))
        torch.testing.assert_close(tokenizer.decode(z), (decoder(z) + 1) / 2)

    def test_images_in_the_unit_interval_are_as_they_are(self, tmp_path: Path) -> None:
        encoder, decoder = write_torchscript(tmp_path)
        tokenizer, x = TorchScriptTokenizer(config(tmp_path, images="unit"), SIDE), images()
        z = tokenizer.encode(x).latents
        torch.testing.assert_close(z, encoder(x))
        torch.testing.assert_close(tokenizer.decode(z), decoder(z))

    def test_shift_and_scale_cancel_in_reconstructions(self, tmp_path: Path) -> None:
        encoder, _ = write_torchscript(tmp_path)
        plain, x = TorchScriptTokenizer(config(tmp_path), SIDE), images()
        scaled = TorchScriptTokenizer(config(tmp_path, scale=0.5, shift=2.0), SIDE)
        z = scaled.encode(x).latents
        torch.testing.assert_close(z, 0.5 * (encoder(2 * x - 1) - 2))
        copy = plain.decode(plain.encode(x).latents)
        torch.testing.assert_close(scaled.decode(z), copy, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("absent", ["encode", "decode"])
    def test_one_file_may_lack(self, tmp_path: Path, absent: str) -> None:
        write_torchscript(tmp_path)
        one = config(tmp_path, **{absent: None})
        assert (one.encodes, one.decodes) == (absent != "encode", absent != "decode")
        assert one.latent_shape(SIDE) == LatentShape(CHANNELS, SIDE // PATCH)
        probe(one)
        tokenizer, z = TorchScriptTokenizer(one, SIDE), torch.zeros(1, CHANNELS, 4, 4)
        with pytest.raises(UsageError, match=absent):
            tokenizer.decode(z) if absent == "decode" else tokenizer.encode(images())

    def test_both_may_not(self, tmp_path: Path) -> None:
        with pytest.raises(ValidationError, match="encode"):
            config(tmp_path, encode=None, decode=None)

    @pytest.mark.parametrize("size", [15, 18])
    def test_images_must_be_divisible(self, tmp_path: Path, size: int) -> None:
        with pytest.raises(ValueError, match=str(size)):
            config(tmp_path).latent_shape(size)

    @pytest.mark.parametrize(
        "damage",
        ["absent", "empty", "no torch file", "a state dict", "an old state dict", "cut off"],
    )
    def test_a_bad_file_is_one_error(self, tmp_path: Path, damage: str) -> None:
        write_torchscript(tmp_path)
        file = tmp_path / "decode.pt"
        if damage == "absent":
            file.unlink()
        elif damage == "empty":
            file.write_bytes(b"")
        elif damage == "no torch file":
            file.write_bytes(b"no zip")
        elif damage == "a state dict":
            torch.save({"weight": torch.zeros(2)}, file)
        elif damage == "an old state dict":
            state = {"weight": torch.zeros(2)}
            torch.save(state, file, _use_new_zipfile_serialization=False)
        else:
            file.write_bytes(file.read_bytes()[:400])
        before = config(tmp_path).missing() or ""
        assert str(file) in before
        assert ("torch.jit.script" in before) == (damage not in ("absent", "cut off"))
        assert ("state_dict" in before) == damage.endswith("state dict")
        with pytest.raises((DataError, CheckpointError), match=r"decode\.pt"):
            TorchScriptTokenizer(config(tmp_path), SIDE)

    @pytest.mark.parametrize(
        ("stated", "found"),
        [({"channels": CHANNELS + 1}, f"{CHANNELS}, 4, 4"), ({"downsampling": 8}, "6, 4, 4")],
    )
    def test_another_shape_than_stated(
        self, tmp_path: Path, stated: dict[str, int], found: str
    ) -> None:
        write_torchscript(tmp_path)
        with pytest.raises(CheckpointError) as caught:
            probe(config(tmp_path, decode=None, **stated))
        assert found in str(caught.value)

    @pytest.mark.parametrize(
        ("key", "network", "stated", "said"),
        [
            ("encode", "TwoOutputs", {}, "a tuple, not a tensor"),
            ("encode", "Bytes", {}, "torch.uint8"),
            ("decode", "Bytes", {}, "torch.uint8"),
            ("decode", None, {"channels": CHANNELS + 2}, f"to have {CHANNELS} channels, but got 8"),
            ("encode", "Half", {}, "torch.float16"),
            ("encode", "Refuses", {}, "no such batch"),
            ("encode", "Linear", {}, "shapes"),
        ],
    )
    def test_a_network_that_does_not_fit(
        self, tmp_path: Path, key: str, network: str | None, stated: dict[str, int], said: str
    ) -> None:
        write_torchscript(tmp_path)
        if network is not None:
            save_torchscript(UNFIT[network], tmp_path / f"{key}.pt")
        other = "decode" if key == "encode" else "encode"
        with pytest.raises(CheckpointError) as caught:
            probe(config(tmp_path, **{other: None}, **stated))
        message = str(caught.value)
        assert str(tmp_path / f"{key}.pt") in message
        assert said in message
        assert len(message.splitlines()) == 1

    @pytest.mark.parametrize("without", [{}, {"encode": None}])
    def test_images_from_0_to_255(self, tmp_path: Path, without: dict[str, None]) -> None:
        _, decoder = write_torchscript(tmp_path)
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.mul_(0.1)
            decoder.bias.fill_(127)
        save_torchscript(decoder, tmp_path / "decode.pt")
        with pytest.raises(CheckpointError, match=r"\[0, 1\]"):
            probe(config(tmp_path, images="unit", **without))


class TwoOutputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Bytes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.byte()


class Refuses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[0] == 0, "no such batch"
        return x


UNFIT = {
    "TwoOutputs": TwoOutputs(),
    "Bytes": Bytes(),
    "Refuses": Refuses(),
    "Half": nn.Conv2d(3, CHANNELS, PATCH, PATCH).half(),
    "Linear": nn.Linear(7, 7),
}


def probe(one: TorchScriptConfig) -> None:
    registry = load_registry()
    written = {"use": "torchscript", **one.model_dump()}
    component = TokenizerComponent.model_validate(written, context={"registry": registry})
    probe_tokenizer_component(TorchScriptTokenizer(one, SIDE), component, SIDE, registry)


class TestLatents:
    def test_the_shape_is_that_of_the_shards(self, tmp_path: Path) -> None:
        latents = torch.zeros(3, 5, 7, 7)
        write_shard(tmp_path / shard_name(0, 0), latents, latents, torch.zeros(3).long())
        found = LatentsConfig(folder=str(tmp_path))
        assert found.latent_shape(256) == LatentShape(5, 7)
        assert found.latents_folder() == str(tmp_path)
        assert not found.encodes
        assert not found.decodes

    @pytest.mark.parametrize("damage", ["no folder", "empty", "no shard", "cut off", "no square"])
    def test_a_bad_folder_is_one_error(self, tmp_path: Path, damage: str) -> None:
        shard = tmp_path / shard_name(0, 0)
        folder = tmp_path / "absent" if damage == "no folder" else tmp_path
        if damage == "no shard":
            shard.write_bytes(b"no safetensors file")
        elif damage in ("cut off", "no square"):
            latents = torch.zeros(3, 5, 7, 6 if damage == "no square" else 7)
            write_shard(shard, latents, latents, torch.zeros(3).long())
            if damage == "cut off":
                shard.write_bytes(shard.read_bytes()[:100])
        with pytest.raises(ValueError, match=str(folder)):
            LatentsConfig(folder=str(folder)).latent_shape(16)

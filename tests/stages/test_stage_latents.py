"""Stage ``latents``: its shards do not depend on who reads the images, nor on who writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from pae_framework.data.data_settings import LatentsSettings
from pae_framework.data.latent_dataset import shard_name
from pae_framework.errors import DataError
from pae_framework.execution.encoded_shards import Throughput
from pae_framework.plugins import load_registry
from pae_framework.stages.latents import encoded_latents

IMAGES = 11


class Halving:
    """A tokenizer whose latents are the image, half as wide, and say how many came at once."""

    def encode(self, images: Tensor) -> Any:
        size = torch.full((len(images), 1, 4, 4), float(len(images)))
        return SimpleNamespace(latents=torch.cat([images[..., ::2, ::2], size], dim=1))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eleven JPEGs of 8 px in two classes."""
    random = np.random.default_rng(0)
    for index in range(IMAGES):
        folder = tmp_path / "pictures" / ("cat" if index < 4 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.jpg", quality=95)
    return tmp_path / "pictures"


def context(
    pictures: Path, folder: str, workers: int, flip: bool = True, precision: str = "float32"
) -> Any:
    spec = load_registry().find("dataset", "image_folder")
    source = spec.component_class()(spec.config_class()(folder=str(pictures)), 8)
    settings = LatentsSettings(shard_size=5, batch_size=2, workers=workers, precision=precision)
    data = SimpleNamespace(flip=flip)
    return SimpleNamespace(
        recipe=SimpleNamespace(latents=settings, data=data),
        directory=pictures.parent / folder,
        device=torch.device("cpu"),
        train_source=source,
    )


def write(made: Any, shards: Iterable[int], tokenizer: Any = None) -> list[int]:
    """The shards that are complete afterwards, in the order in which they were."""
    encoded = encoded_latents(made, tokenizer or Halving())
    return list(encoded.pipeline(Throughput(), shards, lambda: False))


def written(made: Any) -> list[dict[str, Tensor]]:
    assert write(made, range(3)) == [0, 1, 2]
    return [load_file(path) for path in sorted(made.directory.glob("*.safetensors"))]


def test_a_shard_holds_its_images_in_order_plain_and_mirrored(pictures: Path) -> None:
    made = context(pictures, "here", 0)
    shards = written(made)
    assert [len(shard["labels"]) for shard in shards] == [5, 5, 1]
    images = torch.stack([made.train_source[index].image for index in range(IMAGES)]).float() / 255
    plain, mirrored = (torch.cat([x[key] for x in shards]) for key in ("latents", "latents_flip"))
    assert torch.equal(plain[:, :3], images[..., ::2, ::2])
    assert torch.equal(mirrored[:, :3], images.flip(-1)[..., ::2, ::2])
    labels = torch.cat([shard["labels"] for shard in shards])
    assert labels.tolist() == [0] * 4 + [1] * 7
    # Encoded by twos; a shard's last batch ends with the shard.
    assert plain[:, 3, 0, 0].tolist() == [2, 2, 2, 2, 1, 2, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("flip", [False, True])
def test_processes_that_read_ahead_change_no_bit_and_do_the_reading(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    here = written(context(pictures, "here", 0, flip))
    apart = context(pictures, "apart", 2, flip)
    seen: list[int] = []
    read = type(apart.train_source).__getitem__

    def watched(self: Any, index: int) -> Any:
        seen.append(index)
        return read(self, index)

    monkeypatch.setattr(type(apart.train_source), "__getitem__", watched)
    there = written(apart)
    assert seen == []  # not by this process
    for one, two in zip(here, there, strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_an_image_that_cannot_be_read_is_named_by_either(pictures: Path) -> None:
    (pictures / "dog" / "06.jpg").write_bytes(b"no image")
    for workers in (0, 1):
        made = context(pictures, f"out{workers}", workers)
        with pytest.raises(DataError) as refused:
            write(made, range(3))
        assert [path.name for path in made.directory.iterdir()] == [shard_name(0, 0)]
        assert str(pictures / "dog" / "06.jpg") in str(refused.value)


def test_a_shard_that_is_complete_is_not_read_again(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = context(pictures, "here", 0)
    assert write(made, [1]) == [1]
    seen: list[int] = []
    read = type(made.train_source).__getitem__
    monkeypatch.setattr(
        type(made.train_source), "__getitem__", lambda self, i: (seen.append(i), read(self, i))[1]
    )
    assert sorted(write(made, range(3))) == [0, 1, 2]
    assert seen == [*range(5), 10]


class Multiplying(Halving):
    """Its latents are those of :class:`Halving`, times a matrix."""

    def encode(self, images: Tensor) -> Any:
        latents = super().encode(images).latents
        return SimpleNamespace(latents=latents @ torch.eye(4).mul(1 / 3).expand(1, 1, 4, 4))


def test_bf16_encodes_under_autocast_and_float32_does_not(pictures: Path) -> None:
    made = {name: context(pictures, name, 0, precision=name) for name in ("float32", "bf16")}
    for name, one in made.items():
        write(one, range(3), Multiplying())
        assert load_file(one.directory / shard_name(0, 0))["latents"].dtype == torch.float32, name
    exact, rounded = (
        load_file(one.directory / shard_name(0, 1))["latents"] for one in made.values()
    )
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert not torch.equal(exact, exact.bfloat16().float())
    torch.testing.assert_close(exact, rounded, rtol=2**-6, atol=0)

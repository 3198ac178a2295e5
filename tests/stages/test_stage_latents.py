"""Stage ``latents``: its shards do not depend on who reads the images, nor on who writes."""

from __future__ import annotations

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
from pae_framework.errors import DataError
from pae_framework.plugins import load_registry
from pae_framework.stages.latents import ShardWriter

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


def context(pictures: Path, folder: str, workers: int, flip: bool = True) -> Any:
    spec = load_registry().find("dataset", "image_folder")
    source = spec.component_class()(spec.config_class()(folder=str(pictures)), 8)
    settings = LatentsSettings(shard_size=5, batch_size=2, workers=workers)
    data = SimpleNamespace(flip=flip)
    return SimpleNamespace(
        recipe=SimpleNamespace(latents=settings, data=data),
        directory=pictures.parent / folder,
        device=torch.device("cpu"),
        train_source=source,
    )


def written(made: Any) -> list[dict[str, Tensor]]:
    write = ShardWriter(made, Halving())  # type: ignore[arg-type]
    for shard in range(3):
        write(shard)
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
        write = ShardWriter(context(pictures, "out", workers), Halving())  # type: ignore[arg-type]
        write(0)
        with pytest.raises(DataError) as refused:
            write(1)
        assert str(pictures / "dog" / "06.jpg") in str(refused.value)

"""Features of batches are computed once, and never those of other images or another network."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pae_framework.errors import WriteError
from pae_framework.evaluation import feature_cache
from pae_framework.evaluation.feature_cache import FOLDER, CachedExtraction, network_folder
from pae_framework.evaluation.inputs import RunInputs
from pae_framework.evaluation.shared_batches import BATCH, SharedBatches
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.system import file_errors
from pae_framework.world import ONE_PROCESS

CPU = torch.device("cpu")
NETWORK = {"use": "levels", "config": {"resize": 224}, "weights": "abc"}


class Levels:
    """Mean levels of each channel, times a weight; counts the images that it sees."""

    def __init__(self, weight: float = 1.0):
        self.weight, self.seen = weight, 0

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += len(images)
        return self.weight * images.double().mean((2, 3)), images[:, 0, 0, :1].float()


def extraction(network: Levels, folder: Path | None) -> CachedExtraction:
    shared = SharedBatches(ONE_PROCESS, {"levels": network}, lambda: Path("unused"))
    return CachedExtraction(shared, "levels", (), folder)


def images(count: int = 600, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 2, 2), dtype=torch.uint8, generator=generator)


def expected(rows: Tensor, weight: float = 1.0) -> Tensor:
    return weight * rows.double().mean((2, 3))


def test_the_second_time_nothing_is_computed(tmp_path: Path) -> None:
    first, again = Levels(), Levels()
    made = extraction(first, tmp_path)(images())
    kept = extraction(again, tmp_path)(images())
    assert (first.seen, again.seen) == (600, 0)
    assert torch.equal(made[0], expected(images()))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(made, kept, strict=True))


def test_sets_that_share_batches_share_their_features(tmp_path: Path) -> None:
    extraction(Levels(), tmp_path)(images())
    network, longer = Levels(), torch.cat([images()[:500], images(300, seed=1)])
    (found, _) = extraction(network, tmp_path)(longer)
    assert network.seen == 300
    assert torch.equal(found, expected(longer))


def test_equal_batches_are_computed_once(tmp_path: Path) -> None:
    network = Levels()
    same = images(BATCH).repeat(3, 1, 1, 1)
    assert torch.equal(extraction(network, tmp_path)(same)[0], expected(same))
    assert network.seen == BATCH


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 599), st.integers(0, 2), st.integers(0, 1), st.integers(1, 255))
def test_one_other_pixel_is_never_overlooked(
    tmp_path: Path, image: int, channel: int, row: int, step: int
) -> None:
    extraction(Levels(), tmp_path)(images())
    changed = images()
    changed[image, channel, row, 0] += step
    assert torch.equal(extraction(Levels(), tmp_path)(changed)[0], expected(changed))


@pytest.mark.parametrize("order", [slice(None), [1, 0, *range(2, 600)]], ids=["same", "swapped"])
def test_the_order_of_the_images_counts(tmp_path: Path, order: slice | list[int]) -> None:
    extraction(Levels(), tmp_path)(images())
    rows = images()[order]
    assert torch.equal(extraction(Levels(), tmp_path)(rows)[0], expected(rows))


def test_images_of_another_shape_with_the_same_bytes_are_others(tmp_path: Path) -> None:
    extraction(Levels(), tmp_path)(images())
    other = images().view(600, 3, 1, 4)
    network = Levels()
    extraction(network, tmp_path)(other)
    assert network.seen == 600


def folder(network: dict, device: str = "cpu") -> Path:
    return network_folder(Path("store"), network, torch.device(device))


@pytest.mark.parametrize(
    "change",
    [
        {"use": "other"},
        {"config": {"resize": 299}},
        {"weights": "abd"},
        {"version": 2},
    ],
    ids=["network", "resize", "weights", "code"],
)
def test_each_network_has_a_folder_of_its_own(change: dict) -> None:
    assert folder(NETWORK) == folder(dict(reversed(NETWORK.items())))
    assert folder({**NETWORK, **change}) != folder(NETWORK)
    assert folder(NETWORK).parent == Path("store") / FOLDER


@pytest.fixture
def matmul() -> Iterator[Any]:
    before = torch.backends.cuda.matmul.allow_tf32
    yield torch.backends.cuda.matmul
    torch.backends.cuda.matmul.allow_tf32 = before


def test_precision_and_device_have_folders_of_their_own(matmul: Any) -> None:
    matmul.allow_tf32 = False
    found = {folder(NETWORK), folder(NETWORK, "cuda")}
    matmul.allow_tf32 = True
    found.add(folder(NETWORK, "cuda"))
    assert len(found) == 3


@pytest.mark.parametrize("library", ["torch", "torch-fidelity", "timm", "open-clip-torch"])
def test_another_version_of_a_library_has_a_folder_of_its_own(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder(NETWORK)
    monkeypatch.setattr(
        feature_cache, "version", lambda name: "0" if name == library else version(name)
    )
    assert folder(NETWORK) != before


DAMAGE = {
    "empty": lambda content: b"",
    "other": lambda content: b"no features",
    "half": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_computed_and_written_again(tmp_path: Path, damage: str) -> None:
    extraction(Levels(), tmp_path)(images())
    files = sorted(tmp_path.iterdir())
    whole = files[0].read_bytes()
    files[0].write_bytes(DAMAGE[damage](whole))
    network = Levels()
    assert torch.equal(extraction(network, tmp_path)(images())[0], expected(images()))
    assert network.seen in (100, BATCH)
    assert files[0].read_bytes() == whole


def test_an_interruption_loses_at_most_a_batch(tmp_path: Path) -> None:
    class Stopping(Levels):
        def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
            if self.seen == 2 * BATCH:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        extraction(Stopping(), tmp_path)(images())
    network = Levels()
    extraction(network, tmp_path)(images())
    assert network.seen == 600 - 2 * BATCH


def test_too_little_space_is_found_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    # A row has 3 doubles and 1 float.
    monkeypatch.setattr(file_errors.shutil, "disk_usage", lambda path: usage(600 * 28 - 1))
    with pytest.raises(WriteError, match=str(tmp_path)):
        extraction(Levels(), tmp_path)(images())
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(file_errors.shutil, "disk_usage", lambda path: usage(600 * 28))
    extraction(Levels(), tmp_path)(images())


@pytest.mark.parametrize("part", [feature_cache.PART, BATCH], ids=["one part", "several parts"])
@pytest.mark.parametrize("kept", [slice(0, BATCH), slice(BATCH, 600)], ids=["first", "last"])
def test_what_is_cached_needs_no_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int, kept: slice
) -> None:
    """Whichever part of the images it is, and equal batches need it once."""
    monkeypatch.setattr(feature_cache, "PART", part)
    extraction(Levels(), tmp_path)(images()[kept])
    rest = 600 - len(images()[kept])
    rows = torch.cat([images()[:BATCH], images()])
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(file_errors.shutil, "disk_usage", lambda path: usage(rest * 28 - 1))
    with pytest.raises(WriteError, match=str(tmp_path)):
        extraction(Levels(), tmp_path)(rows)
    monkeypatch.setattr(file_errors.shutil, "disk_usage", lambda path: usage(rest * 28))
    assert torch.equal(extraction(Levels(), tmp_path)(rows)[0], expected(rows))


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        network = Levels()
        extraction(network, None)(images())
        assert network.seen == 600
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images(tmp_path: Path, count: int) -> None:
    for _ in range(2):
        found = extraction(Levels(), tmp_path)(images(count))
        assert torch.equal(found[0], expected(images(count)))
        assert found[1].shape == (count, 1)


def test_parts_of_many_images_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "PART", 2 * BATCH)
    rows = images(5 * BATCH + 7)
    assert torch.equal(extraction(Levels(), tmp_path)(rows)[0], expected(rows))


def extractor_folder(settings: str, weight: float = 0.0) -> Path:
    """Folder of the features by the extractor of a recipe, whose network has this weight."""
    recipe = load_recipe("quickstart", [f"extractor={{{settings}}}"], load_registry()).recipe
    inputs = RunInputs(SimpleNamespace(recipe=recipe, device=CPU), store=Path("store"))
    network = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(network.weight, weight)
    torch.nn.init.zeros_(network.bias)
    vars(inputs)["_extractor_network"] = network
    return inputs._extractor_folder


PRETRAINED = "use: inception, weights: none"
OTHERS = {
    "network": ("use: small_cnn, width: 8, train: {steps: 1}", 0.0),
    "its settings": ("use: small_cnn, width: 16, train: {steps: 1}", 0.0),
    "weights": (PRETRAINED, 1.0),
    "resize": (f"{PRETRAINED}, resize: {{side: 64}}", 0.0),
    "side": (f"{PRETRAINED}, resize: {{side: 96}}", 0.0),
    "interpolation": (f"{PRETRAINED}, resize: {{side: 64, interpolation: bilinear}}", 0.0),
    "antialias": (f"{PRETRAINED}, resize: {{side: 64, antialias: false}}", 0.0),
}


def test_an_extractor_with_any_other_setting_or_weight_has_another_folder() -> None:
    found = {name: extractor_folder(*other) for name, other in OTHERS.items()}
    found["itself"] = extractor_folder(PRETRAINED)
    assert extractor_folder(PRETRAINED) == found["itself"]
    assert len(set(found.values())) == len(OTHERS) + 1

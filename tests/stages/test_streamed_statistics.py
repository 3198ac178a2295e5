"""Statistics of training images: streamed, resumed, and those of all images at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.errors import DataError
from pae_framework.evaluation import inputs as inputs_module
from pae_framework.evaluation import streamed_statistics as module
from pae_framework.evaluation.inputs import RunInputs
from pae_framework.evaluation.shared_batches import BATCH, SharedBatches
from pae_framework.evaluation.streamed_statistics import streamed_statistics
from pae_framework.metrics.fdr6 import INCEPTION, VALIDATION
from pae_framework.metrics.feature_statistics import FeatureStatistics
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.plan import PlannedStage, plan
from pae_framework.world import ONE_PROCESS

COUNT = 4 * BATCH + 30


def rows(count: int = COUNT) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Rows:
    """Features of images by their indices; stops before those of image ``stop``."""

    def __init__(self, stop: int | None = None):
        self.stop, self.seen = stop, 0

    def __call__(self, indices: Tensor) -> tuple[Tensor]:
        if self.stop is not None and self.stop <= int(indices[-1]):
            raise KeyboardInterrupt
        self.seen += len(indices)
        return (rows()[indices],)


def statistics(features: Rows, count: int = COUNT, file: Path | None = None) -> FeatureStatistics:
    shared = SharedBatches(ONE_PROCESS, {"rows": features}, Path)
    return streamed_statistics(shared, "rows", count, file)


@pytest.mark.parametrize("count", [2, 3, BATCH, BATCH + 1, COUNT])
def test_they_are_those_of_all_images_at_once(count: int) -> None:
    found, expected = statistics(Rows(), count), rows()[:count].numpy()
    assert found.count == count
    np.testing.assert_allclose(found.mean, expected.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(expected, rowvar=False), rtol=1e-9)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(count: int) -> None:
    with pytest.raises(DataError, match=str(count)):
        statistics(Rows(), count)


def test_the_second_time_nothing_is_computed(tmp_path: Path) -> None:
    file, again = tmp_path / "kept.safetensors", Rows()
    first, second = statistics(Rows(), file=file), statistics(again, file=file)
    assert again.seen == 0
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.covariance, second.covariance)


@pytest.mark.parametrize(("every", "kept"), [(1, 3), (2, 2)])
def test_an_interruption_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, kept: int
) -> None:
    monkeypatch.setattr(module, "SAVED_EVERY", every)
    file, resumed = tmp_path / "kept.safetensors", Rows()
    with pytest.raises(KeyboardInterrupt):
        statistics(Rows(stop=3 * BATCH + 1), file=file)
    found, undisturbed = statistics(resumed, file=file), statistics(Rows())
    assert resumed.seen == COUNT - kept * BATCH
    assert torch.equal(found.mean, undisturbed.mean)
    assert torch.equal(found.covariance, undisturbed.covariance)


def test_damaged_statistics_are_computed_again(tmp_path: Path) -> None:
    file, again = tmp_path / "kept.safetensors", Rows()
    statistics(Rows(), file=file)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    statistics(again, file=file)
    assert again.seen == COUNT


# --- of a run -------------------------------------------------------------------------------------


class Gray(DataSource):
    """Image i is of the gray i."""

    class_names = ("one",)

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> LabeledImage:
        return LabeledImage(torch.full((3, 2, 2), index, dtype=torch.uint8), 0)


class Levels(torch.nn.Module):
    """The feature is the gray."""

    def normalize(self, x: Tensor) -> Tensor:
        return x

    def pool(self, x: Tensor, pooling: str) -> Tensor:
        return 255 * x[:, :1, 0, 0]


def context_of(contents: str | None = None) -> Any:
    config = SimpleNamespace(model_dump=lambda mode: {"folder": "/photos", "split": "train"})
    config.locations = {"folder"}
    parts = {"train_images": "gray", "image_size": 2}
    return SimpleNamespace(
        recipe=SimpleNamespace(
            data=SimpleNamespace(
                test_images=3, train=SimpleNamespace(use="gray", config=config), image_size=2
            ),
            extractor=SimpleNamespace(pooling="mean", resize=None),
            composed=SimpleNamespace(train=SimpleNamespace(workers=0)),
        ),
        train_source=Gray(DataSourceConfig(), 2),
        device=torch.device("cpu"),
        machine={"tf32": False},
        planned=SimpleNamespace(
            data={} if contents is None else {"train": contents}, hashed={"parts": parts}
        ),
    )


class GrayFeatures:
    """The feature is the gray; counts images."""

    sha256, widths, digest = "none", (1, 1), "1234"

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Any:
        self.seen += len(images)
        return images[:, :1, 0, 0].float()


class GrayInception(GrayFeatures):
    def __call__(self, images: Tensor) -> Any:
        gray = super().__call__(images)
        return gray, gray


@pytest.mark.parametrize("name", list(VALIDATION))
def test_a_network_of_fdr6_extracts_each_image_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training images and samples, also in the next evaluation of the same store."""
    network = GrayInception() if name == INCEPTION else GrayFeatures()
    monkeypatch.setattr(inputs_module, "fdr6_network", lambda name, weights, device: network)
    monkeypatch.setattr(inputs_module, "inception_network", lambda weights, device: network)
    samples = torch.full((5, 3, 2, 2), 9, dtype=torch.uint8)
    for _ in range(2):
        features = RunInputs(context_of(), store=tmp_path).fdr6_features(name, "none")
        reference = features.reference
        assert reference.mean.tolist() == pytest.approx([199 / 2])
        assert reference.covariance.item() == pytest.approx(200 * 201 / 12)
        assert reference.protocol["reference"] == "training images"
        assert reference.protocol["reference_count"] == reference.count == 200
        assert features(samples).tolist() == [[9]] * 5
    assert network.seen == 200 + 5


@pytest.mark.parametrize("contents", [None, "1234"])
def test_a_run_uses_all_its_training_images(contents: str | None) -> None:
    """The variance of 0, 1, ..., n - 1 is n (n + 1) / 12."""
    context = context_of(contents)
    inputs = RunInputs(context)
    vars(inputs)["_extractor_network"] = Levels()
    found = inputs.training_reference
    assert found.count == 200
    assert found.mean.tolist() == pytest.approx([199 / 2])
    assert found.covariance.item() == pytest.approx(200 * 201 / 12)
    told = found.protocol
    assert (told["reference"], told["reference_count"]) == ("training images", 200)
    data = {"use": "gray", "split": "train"}
    where = {"folder": "/photos"} if contents is None else {"contents": contents}
    assert told["training_data"] == {**data, **where}
    assert "test_data" not in told


def evaluation(*overrides: str) -> PlannedStage:
    registry = load_registry()
    recipe = load_recipe("quickstart", list(overrides), registry).recipe
    return next(stage for stage in plan(recipe, registry) if stage.name == "evaluate")


PRETRAINED = "extractor={use: inception, weights: none}"
TRAIN = "evaluate.generation.reference=train"
OTHER_IMAGES = "data.train={use: shapes, count: 64}"


def test_the_default_changes_no_fingerprint() -> None:
    assert evaluation("evaluate.generation.reference=test").fingerprint == evaluation().fingerprint


def test_the_fingerprint_covers_training_images_only_where_they_are_used() -> None:
    hashed = [
        evaluation(PRETRAINED, *overrides).hashed["parts"]
        for overrides in ((), (OTHER_IMAGES,), (TRAIN,), (TRAIN, OTHER_IMAGES))
    ]
    assert hashed[0] == hashed[1]
    assert len({str(parts) for parts in hashed}) == 3

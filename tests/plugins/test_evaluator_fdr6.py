"""FDr6 in `fidelity`: all six or none, and never without `random` if weights are random."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pae_evaluators.config import FidelityConfig, InceptionMetricsConfig
from pae_evaluators.inception_metrics import Fidelity
from pae_framework.contracts import FeatureReference, Metric, SampleSet
from pae_framework.metrics.fdr6 import INCEPTION, NETWORKS, VALIDATION, FDr6Network
from pae_framework.metrics.inception import PUBLISHED
from pae_framework.testing.evaluation_inputs import SyntheticInputs
from pae_framework.weight_parts import contents_identity

NAMES = list(NETWORKS)


class Colors:
    """Mean colors times a number that only this network has."""

    def __init__(self, scale: int, digest: str, training: Tensor):
        self.scale, self.digest, self.training = scale, digest, training

    @property
    def reference(self) -> FeatureReference:
        features = self(self.training)
        told = {"reference": "training images", "reference_count": len(features), **PROCESSING}
        return FeatureReference(features.mean(0), features.T.cov(), len(features), told)

    def __call__(self, images: Tensor) -> Tensor:
        return self.scale * images.double().mean((2, 3))


PROCESSING = {"precision": "float32", "tf32": False, "crop": "center"}


class Inputs(SyntheticInputs):
    """All training images are 7 gray levels darker than the samples of the last weights."""

    def __init__(self, sha256: str = PUBLISHED, **sampling: Any) -> None:
        super().__init__(FidelityConfig(fdr6="default").needs)
        self.sha256, self.sampling = sha256, sampling
        self.asked: list[tuple[str, str]] = []

    def inception(self, weights: str) -> Any:
        network = super().inception(weights)
        network.sha256 = self.sha256
        return network

    @property
    def sample_sets(self) -> list[SampleSet]:
        generator = torch.Generator().manual_seed(5)
        images = torch.randint(20, 200, (24, 3, 16, 16), generator=generator, dtype=torch.uint8)
        main = next(samples for samples in super().sample_sets if samples.role == "main")
        labels = torch.zeros(24, dtype=torch.int64)
        protocol = {**main.protocol, **self.sampling}
        last = replace(main, images=images, labels=labels, protocol=protocol)
        return [last, replace(last, role="convergence", generator_step=1)]

    def fdr6_features(self, name: str, weights: str) -> Any:
        self.asked.append((name, weights))
        scale = list(VALIDATION).index(name) + 1
        digest = self.sha256 if name == INCEPTION else f"digest of {name}"
        return Colors(scale, digest, self.sample_sets[0].images - 7)


def present(monkeypatch: pytest.MonkeyPatch, absent: str = "") -> None:
    missing = lambda self, weights: "gone" if self.model == absent else None  # noqa: E731
    monkeypatch.setattr(FDr6Network, "missing", missing)


class WithVariant(Inputs):
    """A variant of the samples is two gray levels lighter."""

    @property
    def sample_sets(self) -> list[SampleSet]:
        main, convergence = super().sample_sets
        images = main.images + 2
        return [main, convergence, replace(main, role="variant", variant="lighter", images=images)]


def test_variants_of_the_samples_are_measured_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    present(monkeypatch)
    found = Fidelity(FidelityConfig(fdr6="default")).evaluate(WithVariant(), tmp_path)
    main, lighter = (metric for metric in found if metric.label == "FDr6")
    assert [each.at.get("samples") for each in (main, lighter)] == [None, "lighter"]
    assert lighter.value / main.value == pytest.approx(9**2 / 7**2, rel=1e-6)


def evaluate(inputs: Inputs, tmp_path: Path, **parameters: Any) -> dict[str, Metric]:
    found = Fidelity(FidelityConfig(**parameters)).evaluate(inputs, tmp_path)
    return {metric.name.removeprefix("fidelity/"): metric for metric in found}


def test_it_is_the_mean_of_the_six_distances_over_their_constants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    present(monkeypatch)
    inputs = Inputs()
    found = evaluate(inputs, tmp_path, fdr6="default")
    # Colors k times as far apart have k^2 times the distance, here to the training images.
    distances = [3 * 7**2 * k**2 for k in range(1, 7)]
    named = ["fd_inception", *(f"fd_{name.partition('.')[0]}" for name in NAMES)]
    assert [found[name].value for name in named] == pytest.approx(distances, rel=1e-6)
    over = zip(distances, VALIDATION.values(), strict=True)
    wanted = sum(distance / validation for distance, validation in over) / 6
    assert found["fdr6"].value == pytest.approx(wanted, rel=1e-6)
    assert found["fdr6"].label == "FDr6"
    assert found["fd_vit_large_patch16_224"].label == "FD (vit_large_patch16_224.mae)"
    assert found["fdr6"].protocol["over"] == VALIDATION
    # Once for each network: of the samples of the last weights only.
    assert inputs.asked == [(name, "default") for name in VALIDATION]
    labels = [metric.label for metric in found.values()]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("file", [False, True])
def test_its_reference_is_the_training_images_whatever_that_of_fid(
    file: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    present(monkeypatch)
    inputs, reference = Inputs(), None
    if file:
        reference = str(tmp_path / "reference.npz")
        np.savez(reference, inputs.images.permute(0, 2, 3, 1).numpy())
    found = evaluate(inputs, tmp_path, fdr6="default", reference=reference)
    behind = [found[name] for name in found if name.startswith(("fd_", "fdr6"))]
    assert len(behind) == 7
    assert {metric.protocol["reference"] for metric in behind} == {"training images"}
    assert found["fid"].protocol["reference"] == (reference or "test images")


def test_the_training_images_are_needed_only_for_it() -> None:
    assert "training_images" not in FidelityConfig().needs
    assert "training_images" in FidelityConfig(fdr6="default").needs


def test_each_protocol_identifies_its_networks_and_the_samples(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    present(monkeypatch)
    found = evaluate(Inputs(precision="bf16", tf32=True), tmp_path, fdr6="default")
    whole = found.pop("fdr6").protocol
    assert not {"features", "resize", "extractor"} & whole.keys()
    for name in NAMES:
        told = found[f"fd_{name.partition('.')[0]}"].protocol
        network = whole["networks"][name]
        assert network["extractor_digest"] == f"digest of {name}"
        assert network["timm"] == version("timm")
        assert network.items() <= told.items()
    assert whole["networks"][INCEPTION]["extractor_sha256"] == PUBLISHED
    for told in (whole, *(one.protocol for name, one in found.items() if name.startswith("fd_"))):
        assert (told["precision"], told["tf32"], told["crop"]) == ("bf16", True, "none")


def test_without_the_setting_there_is_none(tmp_path: Path) -> None:
    assert not any("fdr6" in name for name in evaluate(Inputs(), tmp_path))


@pytest.mark.parametrize("absent", NAMES)
def test_without_all_six_it_is_not_available(
    absent: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    present(monkeypatch, absent)
    with caplog.at_level(logging.WARNING):
        found = evaluate(Inputs(), tmp_path, fdr6="default")
    assert not any("fdr6" in name for name in found)
    assert "fid" in found
    assert f"FDr6: not available: lacks {absent}" in caplog.text


def test_what_is_not_available_and_what_is_doubtful_is_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    present(monkeypatch, NAMES[0])
    evaluator = Fidelity(FidelityConfig(fdr6="default"))
    evaluator.evaluate(Inputs(), tmp_path)
    assert NAMES[0] in evaluator.notes.not_available["FDr6"]
    assert evaluator.notes.cautions
    assert Fidelity(FidelityConfig()).notes.not_available == {}


@pytest.mark.parametrize("sha256", ["none", "0123"])
def test_it_needs_the_published_inception(
    sha256: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    present(monkeypatch)
    with caplog.at_level(logging.WARNING):
        found = evaluate(Inputs(sha256), tmp_path, fdr6="default")
    assert not any("fdr6" in name for name in found)
    assert "lacks Inception" in caplog.text


def test_random_weights_are_named(tmp_path: Path) -> None:
    found = evaluate(Inputs("none"), tmp_path, fdr6="none", weights="none")
    assert "fdr6" not in found
    assert found["fdr6_random"].label == "FDr6 (random)"
    others = [metric for name, metric in found.items() if name.startswith("fd_")]
    assert len(others) == 7  # with that of Inception to the test images
    assert all("random" in metric.label and "FID" not in metric.label for metric in others)


def folder_of_weights(folder: Path) -> str:
    for name in NAMES:
        torch.save({"name": name}, folder / f"{name}.safetensors")
    return str(folder)


def test_preflight_names_the_weights_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InceptionMetricsConfig, "missing", lambda self: None)
    config = FidelityConfig(fdr6=str(tmp_path))
    text = str(config.missing())
    assert [name for name in NAMES if f"{name}.safetensors" not in text] == []
    assert "fdr6=null" in text
    folder_of_weights(tmp_path)
    assert config.missing() is None
    assert FidelityConfig(weights="none", fdr6="none").missing() is None
    assert config.smoke().fdr6 is None


def test_preflight_finds_other_inception_weights(tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(b"not the published ones")
    (tmp_path / "fdr6").mkdir()
    folder = folder_of_weights(tmp_path / "fdr6")
    config = FidelityConfig(weights=str(own), fdr6=folder, reference="test")
    assert str(own) in str(config.missing())
    assert FidelityConfig(weights=str(own), reference="test").missing() is None


@pytest.mark.parametrize("fdr6", ["default", "some/folder"])
def test_random_inception_and_other_networks_are_refused(fdr6: str) -> None:
    with pytest.raises(ValueError, match="fdr6"):
        FidelityConfig(weights="none", fdr6=fdr6)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_of_its_folder_count_by_their_contents(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    config = FidelityConfig(fdr6=folder_of_weights(tmp_path / "a"))
    first = contents_identity(config.files()["fdr6"])
    moved = FidelityConfig(fdr6=str((tmp_path / "a").rename(tmp_path / "b")))
    assert first is not None
    assert contents_identity(moved.files()["fdr6"]) == first
    torch.save({"name": "another"}, tmp_path / "b" / f"{name}.safetensors")
    assert contents_identity(moved.files()["fdr6"]) != first


@pytest.mark.parametrize("fdr6", [None, "default", "none"])
def test_without_a_folder_there_are_no_files(fdr6: str | None) -> None:
    assert FidelityConfig(weights="none" if fdr6 == "none" else "default", fdr6=fdr6).files() == {}

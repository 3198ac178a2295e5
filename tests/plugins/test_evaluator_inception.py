"""The evaluators adm and fidelity: a run's samples against the test images or a reference file."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pae_evaluators import inception_metrics
from pae_evaluators.config import ADMConfig, FidelityConfig
from pae_evaluators.inception_metrics import ADM, Fidelity
from pae_framework.contracts import SampleSet
from pae_framework.data.pixels import UINT8
from pae_framework.errors import DataError
from pae_framework.report.comparing import are_comparable

PUBLISHED = "6726825d" + "0" * 56


PROCESSING = {
    "image_size": "4 x 4",
    "crop": "that of made up",
    "uint8": "rounded",
    "precision": "float32",
    "tf32": False,
}
"""How the test images are made, under keys that protocols of samples have too."""


class MeanColor:
    """Mean colors as pooled features, the first pixel as spatial ones."""

    sha256 = PUBLISHED
    widths = (3, 3)

    def __init__(self):
        self.counts: list[int] = []

    @property
    def largest(self) -> int:
        return max(self.counts, default=0)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.counts.append(len(images))
        floats = images.float()
        return floats.mean((2, 3)), floats[:, :, 0, 0]

    def logits(self, pool: Tensor) -> Tensor:
        return pool


@dataclass
class Material:
    images: Tensor
    sample_sets: tuple[SampleSet, ...]
    network: MeanColor = field(default_factory=MeanColor)
    asked: list[str] = field(default_factory=list)

    def protocol_of(self, part: str) -> dict:
        if part == "test_images":
            return {"test_data": "made up", **PROCESSING}
        return {part: f"the {part}"}

    def inception(self, weights: str) -> MeanColor:
        self.asked.append(weights)
        return self.network


def images(count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randint(20, 200, (count, 3, 1, 1), generator=generator)
    return flat.expand(-1, -1, 4, 4).to(torch.uint8)


def samples(pixels, role="main", steps=50):
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    protocol = {"solver": "heun", "generator_step": 300, "weights": "ema"}
    return SampleSet(pixels, labels, 300, steps, role, protocol)


def evaluate(evaluator, config, inputs):
    return {metric.label: metric for metric in evaluator(config).evaluate(inputs, Path("unused"))}


def test_the_samples_of_the_last_weights_against_the_test_images():
    sets = (
        samples(images() + 50, "checkpoint"),
        samples(images() + 2),
        samples(images() + 9, "few_steps", steps=5),
    )
    inputs = Material(images(), sets)
    found = evaluate(ADM, ADMConfig(weights="mine.pth"), inputs)
    assert list(found) == ["IS", "FID", "sFID", "Precision", "Recall"]
    assert found["FID"].value == found["sFID"].value == pytest.approx(3 * 2**2, rel=1e-6)
    assert inputs.asked == ["mine.pth"]
    told = found["FID"].protocol
    assert told["uint8"] == UINT8
    assert told["solver"] == "heun"
    assert told["test_data"] == "made up"
    assert "test_data" not in found["IS"].protocol
    subject = {"generator": "the generator", "generator_step": 300, "weights": "ema"}
    assert all(metric.subject == subject for metric in found.values())
    assert not any(metric.protocol.keys() & subject.keys() for metric in found.values())
    assert told["reference"] == "test images"
    assert (told["count"], told["reference_count"]) == (40, 40)


@pytest.mark.parametrize("kind", [(ADM, ADMConfig), (Fidelity, FidelityConfig)])
@pytest.mark.parametrize(
    ("key", "value"), [("precision", "bf16"), ("tf32", True), ("solver", "heun")]
)
def test_the_protocol_states_how_samples_were_made_and_not_how_the_reference_was(kind, key, value):
    evaluator, config = kind
    made = replace(samples(images() + 2), protocol={"generator_step": 300, key: value})
    plain = replace(made, protocol={"generator_step": 300})
    told, other = (
        evaluate(evaluator, config(), Material(images(), (one,))) for one in (made, plain)
    )
    assert told.keys() == other.keys()
    for label, metric in told.items():
        assert metric.protocol[key] == value
        assert (metric.protocol["crop"], metric.protocol["uint8"]) == ("none", UINT8)
        assert not are_comparable(metric.protocol, other[label].protocol)


@pytest.mark.parametrize("kind", [(ADM, ADMConfig), (Fidelity, FidelityConfig)])
@pytest.mark.parametrize("file", [False, True])
def test_samples_for_convergence_are_measured_by_step(tmp_path, kind, file):
    """The reference is extracted once for all sets."""
    evaluator, config = kind
    reference = reference_file(tmp_path / "r.npz") if file else None
    origin, counts = images(60, seed=3), [60, 60, 60]
    sets = (
        samples(origin + 2),
        replace(samples(origin + 4, "convergence"), generator_step=100),
        replace(samples(origin + 3, "convergence"), generator_step=300),
    )
    inputs = Material(origin, sets)
    found = evaluator(config(reference=reference)).evaluate(inputs, Path("unused"))
    fid = [metric for metric in found if metric.label == "FID"]
    convention = {"convention": evaluator.convention}
    assert [metric.at for metric in fid] == [
        convention,
        {**convention, "generator_step": 100, "protocol": "convergence"},
        {**convention, "generator_step": 300, "protocol": "convergence"},
    ]
    assert [metric.value for metric in fid] == pytest.approx([3 * 4, 3 * 16, 3 * 9], rel=1e-6)
    assert sorted(inputs.network.counts) == sorted([*counts, 8 if file else 60])


@pytest.mark.parametrize("kind", [(ADM, ADMConfig), (Fidelity, FidelityConfig)])
def test_every_metric_of_a_variant_of_the_samples_has_its_label_and_its_protocol(kind, caplog):
    evaluator, config = kind
    main, other = samples(images() + 2), samples(images() + 5, "variant")
    main = replace(main, protocol={**main.protocol, "guidance": 2.5})
    other = replace(other, protocol={**other.protocol, "guidance": 1.0}, variant="unguided")
    found = evaluator(config()).evaluate(Material(images(), (main, other)), Path("unused"))
    half = len(found) // 2
    convention = {"convention": evaluator.convention}
    for ours, theirs in zip(found[:half], found[half:], strict=True):
        assert ours.name == theirs.name
        assert (ours.at, theirs.at) == (convention, {**convention, "samples": "unguided"})
        assert (ours.protocol["guidance"], theirs.protocol["guidance"]) == (2.5, 1.0)
        assert not are_comparable(ours.protocol, theirs.protocol)
    fid = [metric.value for metric in found if metric.label == "FID"]
    assert fid == pytest.approx([3 * 2**2, 3 * 5**2], rel=1e-6)


def test_by_the_convention_of_torch_fidelity():
    inputs = Material(images(), (samples(images() + 2),))
    found = evaluate(Fidelity, FidelityConfig(), inputs)
    assert list(found) == ["FID", "KID", "IS", "Precision", "Recall"]
    assert found["IS"].std is not None
    assert found["KID"].std is None  # all 40 images of both sets are its only subset


def reference_file(path, **without):
    pool = images(60, seed=3).double().mean((2, 3)).numpy()
    arrays = {
        "arr_0": images(8, seed=4).permute(0, 2, 3, 1).numpy(),
        "mu": pool.mean(0),
        "sigma": np.cov(pool, rowvar=False),
        "mu_s": pool.mean(0),
        "sigma_s": np.cov(pool, rowvar=False),
    }
    np.savez(path, **{name: array for name, array in arrays.items() if name not in without})
    return str(path)


def test_against_a_reference_file(tmp_path):
    config = ADMConfig(reference=reference_file(tmp_path / "r.npz"))
    inputs = Material(images(5), (samples(images(60, seed=3) + 2),))
    found = evaluate(ADM, config, inputs)
    assert found["FID"].value == pytest.approx(3 * 2**2, rel=1e-6)
    assert found["Recall"].protocol["reference_count"] == 8
    assert found["FID"].protocol["reference"] == str(tmp_path / "r.npz")
    assert not any("test_data" in metric.protocol for metric in found.values())


def test_what_a_reference_lacks_is_logged_and_left_out(tmp_path, caplog):
    config = ADMConfig(reference=reference_file(tmp_path / "r.npz", mu_s=True, arr_0=True))
    with caplog.at_level(logging.WARNING):
        found = evaluate(ADM, config, Material(images(5), (samples(images()),)))
    assert list(found) == ["IS", "FID"]
    for label in ("sFID", "Precision", "Recall"):
        assert f"{label}: not available: the reference lacks" in caplog.text


def test_a_reference_of_another_size_is_refused(tmp_path):
    np.savez(tmp_path / "r.npz", np.zeros((8, 5, 5, 3), np.uint8))
    config = ADMConfig(reference=str(tmp_path / "r.npz"))
    inputs = Material(images(), (samples(images()),))
    with pytest.raises(DataError, match=r"4 x 4.*5 x 5"):
        evaluate(ADM, config, inputs)
    assert inputs.network.largest == 0


def test_many_images_pass_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(inception_metrics, "PART", 16)
    monkeypatch.setattr(inception_metrics, "_READ", 7)
    config = ADMConfig(reference=reference_file(tmp_path / "r.npz"))
    inputs = Material(images(5), (samples(images(60, seed=3) + 2),))
    found = evaluate(ADM, config, inputs)
    assert found["FID"].value == pytest.approx(3 * 2**2, rel=1e-6)
    assert inputs.network.largest == 16


def test_random_weights_give_no_fid():
    inputs = Material(images(), (samples(images() + 2),))
    inputs.network.sha256 = "none"
    found = evaluate(ADM, ADMConfig(weights="none"), inputs)
    assert all("random Inception" in label and "FID" not in label for label in found)


# --- settings -------------------------------------------------------------------------------------


def test_missing_files_are_found_before_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert str(tmp_path) in ADMConfig().missing()
    assert "r.npz" in ADMConfig(reference="r.npz", weights="none").missing()
    assert "w.pth" in FidelityConfig(reference="test", weights="w.pth").missing()
    reference = reference_file(tmp_path / "r.npz")
    assert ADMConfig(reference=reference, weights="none").missing() is None


def test_files_count_by_their_contents(tmp_path):
    config = ADMConfig(reference="r.npz", weights="w.pth")
    assert config.files() == {"reference": Path("r.npz"), "weights": Path("w.pth")}
    assert ADMConfig().files() == {}


def test_a_smoke_run_needs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert ADMConfig(reference="r.npz").smoke().missing() is None


@pytest.mark.parametrize("config", [ADMConfig, FidelityConfig])
def test_what_samples_are_compared_with_must_be_said(config):
    told = config(weights="none").missing()
    for word in ("`reference`", "pae reference build", "`test`"):
        assert word in told
    chosen = config(reference="test", weights="none")
    assert (chosen.missing(), chosen.reference_file, chosen.files()) == (None, None, {})
    assert config(weights="none").smoke().missing() is None


def test_the_test_images_by_name_are_those_of_an_unset_reference():
    inputs = Material(images(), (samples(images() + 2),))
    unset, named = (
        evaluate(ADM, ADMConfig(weights="none", reference=x), inputs) for x in (None, "test")
    )
    assert unset == named
    assert named["FID"].protocol["reference"] == "test images"


@pytest.mark.parametrize("weights", ["defualt", ""])
def test_unknown_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        ADMConfig(weights=weights)

"""The evaluators that compare sets of images: reconstruction, generation, few_steps."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from pae_evaluators import reconstruction
from pae_evaluators.config import FewStepsConfig, GenerationConfig, ReconstructionConfig
from pae_evaluators.reconstruction import Reconstruction
from pae_evaluators.sample_quality import FewSteps, Generation
from pae_framework.contracts import FeatureReference, SampleSet
from pae_framework.data.pixels import squared_error
from pae_framework.metrics import feature_statistics
from pae_framework.tokenizer.tokenizer_settings import LpipsSettings


class MeanColor:
    """Features are the three mean colors, 0 to 255."""

    name = "mean_color"
    protocol: ClassVar[Mapping[str, Any]] = {"extractor": "the extractor"}

    def __init__(self):
        self.largest_batch = 0

    def label(self, label: str) -> str:
        return label

    def __call__(self, images: Tensor) -> Tensor:
        self.largest_batch = max(self.largest_batch, len(images))
        return images.double().mean((2, 3))


class FirstPixel:
    """In Inception's place: the first pixel as pooled features."""

    widths = (3, 3)

    def __init__(self, sha256: str):
        self.sha256 = sha256

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images[:, :, 0, 0].float()
        return pixels, pixels


@dataclass
class Material:
    images: Tensor
    reconstructions: Tensor | None = None
    sample_sets: tuple[SampleSet, ...] = ()
    extractor: MeanColor = field(default_factory=MeanColor)
    seed: int = 0
    unavailable: dict[str, str] = field(default_factory=dict)
    perceptual_name: str = "mean absolute difference (a stand-in for LPIPS)"
    sha256: str = "none"
    training_images: Tensor | None = None

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().flatten(1).mean(1)

    def inception(self, weights: str) -> "FirstPixel":
        return FirstPixel(self.sha256)

    def protocol_of(self, part: str) -> dict:
        if part == "test_images":
            return {"test_data": "made up", "image_size": "16 x 16"}
        if part == "perceptual":
            return {part: self.perceptual_name}
        return {part: f"the {part}", f"{part}_digest": f"digest of the {part}"}

    @property
    def indices(self) -> range:
        """Every other image of a source twice as large."""
        return range(0, 2 * len(self.images), 2)

    @property
    def image_features(self) -> Tensor:
        return self.images.double().mean((2, 3))

    @property
    def training_reference(self) -> FeatureReference:
        colors = self.training_images.double().mean((2, 3))
        protocol = {"reference": "training images", "reference_count": len(colors)}
        return FeatureReference(colors.mean(0), colors.T.cov(), len(colors), protocol)


def images(count=40, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(60, 180, (count, 3, 1, 1), generator=generator)
    texture = torch.randint(-20, 20, (count, 3, size, size), generator=generator)
    return (levels + texture).to(torch.uint8)


def samples(role, generator_step, steps, shift):
    """The test images, brighter by ``shift`` in three channels: at the distance 3 shift^2."""
    return SampleSet(
        images() + shift,
        torch.zeros(40, dtype=torch.int64),
        generator_step,
        steps,
        role,
        protocol={
            "solver": "heun",
            "steps": steps,
            "evaluations": 2 * steps,
            "guidance": 1.5,
            "generator_step": generator_step,
            "weights": "ema",
        },
    )


SETS = (
    samples("main", 300, 50, shift=1),
    samples("checkpoint", 200, 50, shift=4),
    samples("checkpoint", 100, 50, shift=6),
    samples("few_steps", 300, 10, shift=2),
    samples("few_steps", 300, 5, shift=3),
)


# --- reconstruction -----------------------------------------------------------------------------


def reconstruct(tmp_path, originals, copies, inputs=Material, **parameters):
    inputs = inputs(originals, copies)
    found = Reconstruction(ReconstructionConfig(**parameters)).evaluate(inputs, tmp_path)
    return {metric.name: metric for metric in found}


def per_image(tmp_path):
    return [json.loads(line) for line in (tmp_path / "per_image.jsonl").read_text().splitlines()]


def test_reconstruction_of_a_constant_error(tmp_path):
    # 51 / 255 = 0.2: -10 log10(0.04) dB; the mean color moves by 51 in three channels.
    found = reconstruct(tmp_path, images(), images() + 51)
    assert found["reconstruction/psnr"].value == pytest.approx(13.9794, abs=1e-4)
    assert found["reconstruction/psnr_pooled"].value == pytest.approx(13.9794, abs=1e-4)
    assert found["reconstruction/perceptual"].value == pytest.approx(0.2)
    assert found["reconstruction/fd_mean_color"].value == pytest.approx(3 * 51**2)
    assert 0 < found["reconstruction/ssim"].value < 1


def test_the_two_means_of_psnr(tmp_path):
    # Errors of 50 and 5: 20 dB apart. The mean of the squared errors is (2500 + 25) / 2 = 1262.5.
    copies = images() + 50
    copies[20:] -= 45
    found = reconstruct(tmp_path, images(), copies)
    large = -20 * math.log10(50 / 255)
    assert found["reconstruction/psnr"].value == pytest.approx(large + 10)
    pooled = -10 * math.log10(1262.5 / 255**2)
    assert found["reconstruction/psnr_pooled"].value == pytest.approx(pooled)
    assert found["reconstruction/psnr"].value > pooled + 1
    told = [found[f"reconstruction/{key}"].protocol["unit"] for key in ("psnr", "psnr_pooled")]
    assert "mean over images" in told[0]
    assert "mean squared error over all images" in told[1]


def test_perfect_reconstructions(tmp_path):
    found = reconstruct(tmp_path, images(), images())
    assert found["reconstruction/psnr"].value == 100
    assert found["reconstruction/psnr_pooled"].value == 100
    assert found["reconstruction/perceptual"].value == 0
    assert found["reconstruction/ssim"].value == pytest.approx(1)
    assert found["reconstruction/fd_mean_color"].value == pytest.approx(0, abs=1e-8)


def test_equal_images_are_counted_because_their_psnr_is_limited(tmp_path, caplog):
    copies = images()
    copies[7:] += 51
    found = reconstruct(tmp_path, images(), copies)
    assert "7 of 40" in caplog.text
    assert "100 dB" in caplog.text
    assert found["reconstruction/psnr"].value == pytest.approx((7 * 100 + 33 * 13.9794) / 40)
    assert found["reconstruction/psnr"].protocol["limit"] == "100 dB"
    # The limit is far from the error of all images, which 33 / 40 of them share.
    expected = 13.9794 - 10 * math.log10(33 / 40)
    assert found["reconstruction/psnr_pooled"].value == pytest.approx(expected, abs=1e-4)


def test_reconstruction_metrics_say_what_they_are(tmp_path):
    found = reconstruct(tmp_path, images(), images() + 51)
    headings = {metric.label: metric.higher_is_better for metric in found.values()}
    assert headings == {
        "PSNR": True,
        "PSNR (pooled error)": True,
        "SSIM": True,
        "Perceptual distance": False,
        "rFD": False,
    }
    for metric in found.values():
        assert metric.protocol["test_data"] == "made up"
        assert metric.protocol["count"] == 40
    distance = found.pop("reconstruction/fd_mean_color").protocol
    assert (distance["extractor"], distance["reference_count"]) == ("the extractor", 40)
    assert not any("extractor" in metric.protocol for metric in found.values())


def test_the_tokenizer_is_what_reconstruction_measures_not_how(tmp_path):
    for metric in reconstruct(tmp_path, images(), images() + 51).values():
        assert metric.subject["tokenizer_digest"] == "digest of the tokenizer"
        assert not any("tokenizer" in key for key in metric.protocol)


def test_only_lpips_is_called_lpips(tmp_path):
    name = str(LpipsSettings(weight=1.0, weights="default"))
    found = reconstruct(tmp_path, images(), images() + 51, partial(Material, perceptual_name=name))
    assert found["reconstruction/lpips"].label == "LPIPS"
    assert found["reconstruction/lpips"].protocol["perceptual"] == name
    assert "lpips" in per_image(tmp_path)[0]
    name = str(LpipsSettings(weight=1.0, weights="none"))
    found = reconstruct(tmp_path, images(), images() + 51, partial(Material, perceptual_name=name))
    assert "reconstruction/lpips" not in found
    assert found["reconstruction/perceptual"].protocol["perceptual"] == name


@pytest.mark.parametrize(
    ("sha256", "name", "label"),
    [
        ("6726825d" + "0" * 56, "fid", "rFID"),
        ("none", "fd_random_inception", "rFD (random Inception)"),
        ("12345678" + "0" * 56, "fd_inception_with_weights_12345678", "weights 12345678"),
    ],
)
def test_rfid_if_weights_are_asked_for(tmp_path, monkeypatch, sha256, name, label):
    monkeypatch.setattr(feature_statistics, "PART", 16)
    inputs = partial(Material, sha256=sha256)
    found = reconstruct(tmp_path, images(), images() + 51, inputs, weights="mine.pth")
    metric = found[f"reconstruction/{name}"]
    assert label in metric.label
    assert metric.value == pytest.approx(3 * 51**2, rel=1e-5)
    assert metric.protocol["extractor_sha256"] == sha256
    assert metric.protocol["test_data"] == "made up"
    assert metric.subject["tokenizer_digest"] == "digest of the tokenizer"
    assert (metric.protocol["count"], metric.protocol["reference_count"]) == (40, 40)
    assert "reconstruction/fd_mean_color" in found


def test_inception_is_needed_only_if_weights_are_asked_for():
    assert ReconstructionConfig().needs == {"reconstructions", "extractor"}
    asked = ReconstructionConfig(weights="missing.pth")
    assert asked.needs == {"reconstructions", "extractor", "inception"}
    assert "missing.pth" in asked.missing()
    assert asked.files() == {"weights": Path("missing.pth")}
    assert asked.smoke().weights == "none"
    for config in (ReconstructionConfig(), asked.smoke()):
        assert (config.missing(), config.fetch(), config.files()) == (None, None, {})
    with pytest.raises(ValidationError, match="unknown weights"):
        ReconstructionConfig(weights="inception")


def test_values_of_single_images_are_kept(tmp_path):
    copies = images()
    copies[3] += 51
    found = reconstruct(tmp_path, images(), copies)
    rows = per_image(tmp_path)
    assert [row["index"] for row in rows] == list(range(0, 80, 2))
    assert min(rows, key=lambda row: row["psnr"])["index"] == 6
    for key in ("psnr", "ssim", "perceptual"):
        mean = sum(row[key] for row in rows) / 40
        assert mean == pytest.approx(found[f"reconstruction/{key}"].value, abs=1e-5)


def test_the_worst_images_are_shown_beside_their_differences(tmp_path):
    copies = images()
    copies[3] += 20
    copies[8] += 51
    copies[20, 0, 0, 0] += 100  # a tiny error
    reconstruct(tmp_path, images(), copies, worst=2)
    shown = np.asarray(Image.open(tmp_path / "worst.png"))
    # 16 px are enlarged 4 times, with 2 px in between: 2 rows, 3 columns.
    assert shown.shape == (2 * 64 + 2, 3 * 64 + 2 * 2, 3)
    for row, index, error in ((0, 8, 51), (1, 3, 20)):
        cells = [shown[66 * row :, 66 * column :][:64:4, :64:4] for column in range(3)]
        assert (cells[0] == images()[index].permute(1, 2, 0).numpy()).all()
        assert (cells[1] == copies[index].permute(1, 2, 0).numpy()).all()
        assert (cells[2] == 4 * error).all()


def test_no_picture_if_none_is_asked_for(tmp_path):
    reconstruct(tmp_path, images(), images(), worst=0)
    assert not (tmp_path / "worst.png").exists()


def test_fewer_images_than_the_picture_has_rows(tmp_path):
    reconstruct(tmp_path, images(3, size=70), images(3, size=70), worst=8)
    with Image.open(tmp_path / "worst.png") as shown:
        assert shown.size == (3 * 70 + 4, 3 * 70 + 4)


def test_images_are_compared_batch_by_batch(tmp_path, monkeypatch):
    together = []

    def spied(a, b):
        together.append(len(a))
        return squared_error(a, b)

    monkeypatch.setattr(reconstruction, "squared_error", spied)
    reconstruct(tmp_path, images(120), images(120))
    assert together == [50, 50, 20]


def test_ssim_is_left_out_where_its_window_does_not_fit(tmp_path):
    with pytest.warns(UserWarning, match="SSIM"):
        found = reconstruct(tmp_path, images(size=8), images(size=8))
    assert "reconstruction/ssim" not in found
    assert set(per_image(tmp_path)[0]) == {"index", "psnr", "perceptual"}


# --- generation and few steps -------------------------------------------------------------------


def test_generation_judges_each_set_of_weights(tmp_path):
    inputs = Material(images(), sample_sets=SETS)
    found = Generation(GenerationConfig()).evaluate(inputs, tmp_path)
    assert {metric.name for metric in found} == {"generation/fd_mean_color"}
    assert {metric.label for metric in found} == {"gFD"}
    assert [metric.at for metric in found] == [
        {"generator_step": 100},
        {"generator_step": 200},
        {"generator_step": 300},
    ]
    assert [metric.value for metric in found] == pytest.approx([3 * 36, 3 * 16, 3])
    assert not any(metric.higher_is_better for metric in found)


def test_samples_for_convergence_are_a_series_of_their_own(tmp_path):
    small = (samples("convergence", 200, 10, shift=5), samples("convergence", 300, 10, shift=2))
    inputs = Material(images(), sample_sets=(*SETS, *small))
    found = Generation(GenerationConfig()).evaluate(inputs, tmp_path)
    apart = [metric for metric in found if metric.at.get("protocol") == "convergence"]
    assert [(m.at["generator_step"], m.value) for m in apart] == [
        (200, pytest.approx(3 * 25)),
        (300, pytest.approx(3 * 4)),
    ]
    assert len([metric for metric in found if metric not in apart]) == 3
    few = FewSteps(FewStepsConfig()).evaluate(inputs, tmp_path)
    assert len(few) == 3


def test_variants_of_the_samples_have_their_labels(tmp_path):
    unguided = replace(samples("variant", 300, 50, shift=5), variant="unguided")
    inputs = Material(images(), sample_sets=(*SETS, unguided))
    found = Generation(GenerationConfig()).evaluate(inputs, tmp_path)
    (metric,) = [metric for metric in found if "samples" in metric.at]
    assert metric.at == {"generator_step": 300, "samples": "unguided"}
    assert metric.value == pytest.approx(3 * 25)
    assert len(found) == 4
    assert len(FewSteps(FewStepsConfig()).evaluate(inputs, tmp_path)) == 3


def of_solver(solver, steps, role="few_steps"):
    found = samples(role, 300, steps, shift=2)
    return replace(found, protocol={**found.protocol, "solver": solver})


def test_few_steps_names_the_solver_if_there_are_several(tmp_path):
    sets = (of_solver("euler", 50, "main"), of_solver("heun", 5), of_solver("euler", 5))
    inputs = Material(images(), sample_sets=sets)
    found = FewSteps(FewStepsConfig()).evaluate(inputs, tmp_path)
    at = [(metric.at["steps"], metric.at["solver"]) for metric in found]
    assert sorted(at) == [(5, "euler"), (5, "heun"), (50, "euler")]


def test_few_steps_judges_the_last_weights_by_solver_steps(tmp_path):
    inputs = Material(images(), sample_sets=SETS)
    found = FewSteps(FewStepsConfig()).evaluate(inputs, tmp_path)
    assert {metric.name for metric in found} == {"few_steps/fd_mean_color"}
    assert [metric.at for metric in found] == [
        {"steps": 5, "evaluations": 10},
        {"steps": 10, "evaluations": 20},
        {"steps": 50, "evaluations": 100},
    ]
    assert [metric.value for metric in found] == pytest.approx([3 * 9, 3 * 4, 3])


def test_the_protocol_of_samples_holds_what_a_comparison_needs(tmp_path):
    inputs = Material(images(50, seed=1), sample_sets=SETS[:1])
    (metric,) = Generation(GenerationConfig()).evaluate(inputs, tmp_path)
    assert metric.protocol == {
        "test_data": "made up",
        "image_size": "16 x 16",
        "precision": "float32",
        "solver": "heun",
        "steps": 50,
        "evaluations": 100,
        "guidance": 1.5,
        "extractor": "the extractor",
        "extractor_digest": "digest of the extractor",
        "feature_width": 3,
        "covariance": "unbiased, float64",
        "count": 40,
        "reference": "test images",
        "reference_count": 50,
    }
    assert metric.subject == {
        "generator": "the generator",
        "generator_digest": "digest of the generator",
        "generator_step": 300,
        "weights": "ema",
    }


@pytest.mark.parametrize(
    ("evaluator", "config"), [(Generation, GenerationConfig), (FewSteps, FewStepsConfig)]
)
def test_samples_against_training_images(tmp_path, evaluator, config):
    """These are darker than the test images by 2, so the samples are 2 further away."""
    inputs = Material(images(), sample_sets=SETS[:1], training_images=images() - 2)
    settings = config(reference="train")
    assert "training_images" in settings.needs
    assert "training_images" not in config().needs
    (metric,) = evaluator(settings).evaluate(inputs, tmp_path)
    assert metric.value == pytest.approx(3 * 3**2)
    assert metric.label == "gFD"
    told = {key: metric.protocol[key] for key in ("reference", "reference_count", "count")}
    assert told == {"reference": "training images", "reference_count": 40, "count": 40}


def test_no_samples_no_figures(tmp_path):
    checkpoints_only = Material(images(), sample_sets=SETS[1:2])
    assert FewSteps(FewStepsConfig()).evaluate(checkpoints_only, tmp_path) == []


def test_many_images_pass_through_the_extractor_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_statistics, "PART", 500)
    many = images(1100)
    one_set = replace(SETS[0], images=many + 2)
    inputs = Material(many, sample_sets=(one_set,))
    (metric,) = Generation(GenerationConfig()).evaluate(inputs, tmp_path)
    assert metric.value == pytest.approx(12)
    assert metric.protocol["count"] == 1100
    assert inputs.extractor.largest_batch == 500

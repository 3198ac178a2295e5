"""The evaluators that compare sets of images: reconstruction, generation, few_steps."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from pae_evaluators import feature_distance
from pae_evaluators.config import FewStepsConfig, GenerationConfig, ReconstructionConfig
from pae_evaluators.reconstruction import Reconstruction
from pae_evaluators.sample_quality import FewSteps, Generation
from pae_framework.contracts import FeatureReference, SampleSet


class MeanColor:
    """Features are the three mean colors, 0 to 255."""

    name = "mean_color"
    protocol: ClassVar[Mapping[str, Any]] = {"extractor": "mean_color"}

    def __init__(self):
        self.largest_batch = 0

    def label(self, label: str) -> str:
        return label

    def __call__(self, images: Tensor) -> Tensor:
        self.largest_batch = max(self.largest_batch, len(images))
        return images.double().mean((2, 3))


@dataclass
class Material:
    images: Tensor
    reconstructions: Tensor | None = None
    sample_sets: tuple[SampleSet, ...] = ()
    extractor: MeanColor = field(default_factory=MeanColor)
    seed: int = 0
    training_images: Tensor | None = None

    def protocol_of(self, part: str) -> dict:
        if part == "test_images":
            return {"test_data": "made up", "image_size": "16 x 16"}
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


def reconstruct(tmp_path, originals, copies):
    inputs = Material(originals, copies)
    found = Reconstruction(ReconstructionConfig()).evaluate(inputs, tmp_path)
    return {metric.name: metric for metric in found}


def test_reconstruction_of_a_constant_error(tmp_path):
    # 51 / 255 = 0.2: -10 log10(0.04) dB; the mean color moves by 51 in three channels.
    found = reconstruct(tmp_path, images(), images() + 51)
    assert found["reconstruction/psnr"].value == pytest.approx(13.9794, abs=1e-4)
    assert found["reconstruction/fd_mean_color"].value == pytest.approx(3 * 51**2)
    assert 0 < found["reconstruction/ssim"].value < 1


def test_perfect_reconstructions(tmp_path):
    found = reconstruct(tmp_path, images(), images())
    assert found["reconstruction/psnr"].value == 100
    assert found["reconstruction/ssim"].value == pytest.approx(1)
    assert found["reconstruction/fd_mean_color"].value == pytest.approx(0, abs=1e-8)


def test_reconstruction_metrics_say_what_they_are(tmp_path):
    found = reconstruct(tmp_path, images(), images() + 51)
    headings = {metric.label: metric.higher_is_better for metric in found.values()}
    assert headings == {"PSNR": True, "SSIM": True, "rFD": False}
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


def test_figures_of_single_images_are_kept(tmp_path):
    copies = images()
    copies[3] += 51
    found = reconstruct(tmp_path, images(), copies)
    lines = (tmp_path / "per_image.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["index"] for row in rows] == list(range(0, 80, 2))
    assert min(rows, key=lambda row: row["psnr"])["index"] == 6
    mean = sum(row["psnr"] for row in rows) / 40
    assert mean == pytest.approx(found["reconstruction/psnr"].value, abs=1e-5)
    mean = sum(row["ssim"] for row in rows) / 40
    assert mean == pytest.approx(found["reconstruction/ssim"].value, abs=1e-5)


def test_ssim_is_left_out_where_its_window_does_not_fit(tmp_path):
    with pytest.warns(UserWarning, match="SSIM"):
        found = reconstruct(tmp_path, images(size=8), images(size=8))
    assert set(found) == {"reconstruction/psnr", "reconstruction/fd_mean_color"}
    first = json.loads((tmp_path / "per_image.jsonl").read_text().splitlines()[0])
    assert set(first) == {"index", "psnr"}


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
    monkeypatch.setattr(feature_distance, "EXTRACTED", 500)
    many = images(1100)
    one_set = replace(SETS[0], images=many + 2)
    inputs = Material(many, sample_sets=(one_set,))
    (metric,) = Generation(GenerationConfig()).evaluate(inputs, tmp_path)
    assert metric.value == pytest.approx(12)
    assert metric.protocol["count"] == 1100
    assert inputs.extractor.largest_batch == 500

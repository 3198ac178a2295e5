"""The verdict on latent spaces made to be good or bad, from metrics that the evaluator computes.

Tokens of the good tokenizer have three parts: the segment, the class of the image, and the color of
the patch, which the decoder reads. So a linear decoder of many channels hardly moves with a token.
"""

from dataclasses import asdict, dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from pae_evaluators.config import ManifoldConfig
from pae_evaluators.manifold import Manifold
from pae_framework.report.verdict import judge

CLASSES, CHANNELS, GRID, PATCH = 4, 24, 4, 4
SIZE = GRID * PATCH
SEGMENT, CLASS, COLOR = slice(0, 2), slice(2, 6), slice(6, 9)
GAIN = 2.0
"""Of the colors in a token."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass
class Run:
    """A run with a good tokenizer of ``count`` images, each with its color in every patch."""

    unavailable: ClassVar[dict[str, str]] = {}

    count: int = 120
    seed: int = 0
    labels: Tensor = field(init=False)
    colors: Tensor = field(init=False)
    latents: Tensor = field(init=False)

    def __post_init__(self):
        self.labels = torch.arange(self.count) % CLASSES
        self.colors = normal(self.count, 3, GRID, GRID, seed=1).div(6).clamp(-0.5, 0.5)
        self.latents = self.prior()
        self.latents[:, COLOR] = GAIN * self.colors

    def prior(self) -> Tensor:
        """What the encoder knows of each token: segment and class."""
        tokens = torch.zeros(self.count, CHANNELS, GRID, GRID)
        tokens[:, SEGMENT.start, : GRID // 2] = 1
        tokens[:, SEGMENT.start + 1, GRID // 2 :] = 1
        tokens[torch.arange(self.count), CLASS.start + torch.arange(self.count) % CLASSES] = 1
        return tokens

    @property
    def images(self) -> Tensor:
        pixels = (self.colors + 0.5).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        return (255 * pixels).round().to(torch.uint8)

    @property
    def pooled_features(self) -> Tensor:
        return self.features(torch.arange(self.count)).mean(1)

    def features(self, indices: Tensor) -> Tensor:
        tokens = self.prior().flatten(2).transpose(1, 2)
        return (tokens + 0.1 * normal(*tokens.shape, seed=2))[indices]

    def masks_of(self, indices: Tensor) -> Tensor:
        masks = torch.zeros(len(indices), SIZE, SIZE, dtype=torch.int64)
        masks[:, : SIZE // 2] = 1
        return masks

    def decode(self, latents: Tensor) -> Tensor:
        colors = latents[:, COLOR] / GAIN + 0.5
        return colors.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().flatten(1).mean(1).sqrt()

    def protocol_of(self, part: str) -> dict:
        return {part: "made up"}


def verdict_on(run: Run, tmp_path, **parameters):
    """The verdict, the metrics, and the diagnoses by their labels."""
    config = ManifoldConfig(**{"images": 10, **parameters})
    metrics = [asdict(metric) for metric in Manifold(config).evaluate(run, tmp_path)]
    verdict = judge(metrics)
    values = {metric["name"].removeprefix("manifold/"): metric["value"] for metric in metrics}
    return verdict, values, {found.label: found for found in verdict.diagnoses}


def grades(diagnoses) -> dict[str, str]:
    return {label: found.grade for label, found in diagnoses.items()}


def test_a_good_tokenizer(tmp_path):
    verdict, values, found = verdict_on(Run(), tmp_path)
    assert verdict.answer == "yes"
    assert "spatially coherent, locally continuous and semantically" in verdict.sentence
    assert grades(found) == {"SSC": "good", "LPC": "good", "GSQ": "good", "eRank": "no collapse"}
    assert not verdict.caveats
    assert values["ssc"] > (values["ssc_random"] + values["ssc_encoder"]) / 2
    assert values["lpc"] < min(values["lpc_pixels"], values["lpc_other"] / 2)
    assert values["gsq"] > values["gsq_pixels"] + 0.13
    assert values["distance_own"] < 0.01 < values["distance_other"]


def test_a_decoder_that_ignores_its_latents(tmp_path):
    run = Run()
    run.decode = lambda latents: torch.full((len(latents), 3, SIZE, SIZE), 0.5)
    verdict, values, found = verdict_on(run, tmp_path)
    assert verdict.answer == "no"
    assert "reconstructions are hardly closer to their own image" in verdict.sentence
    assert values["lpc"] == values["lpc_other"] == 0 < values["distance_images"]
    assert found["LPC"].grade == "unclear"
    (caveat,) = verdict.caveats
    assert "ignores its latents" in caveat


def test_latents_replaced_by_noise(tmp_path):
    run = Run()
    run.latents = normal(*run.latents.shape, seed=5)
    verdict, values, found = verdict_on(run, tmp_path)
    assert verdict.answer == "no"
    assert "reconstructions are hardly closer to their own image" in verdict.sentence
    assert values["distance_own"] > 0.9 * values["distance_other"]
    assert found["SSC"].grade == found["GSQ"].grade == "poor"
    assert values["gsq"] == pytest.approx(1 / CLASSES, abs=0.13)


def test_noise_beside_the_colors_is_neither_coherent_nor_organized(tmp_path):
    run = Run()
    noise = normal(*run.latents.shape, seed=6) / 4
    noise[:, COLOR] = run.latents[:, COLOR]
    run.latents = noise
    verdict, _, found = verdict_on(run, tmp_path)
    assert verdict.answer == "undecided"  # it reconstructs, and the decoder is smooth
    assert "but not spatially coherent or semantically organized" in verdict.sentence
    assert found["LPC"].grade == "good"


def test_shuffled_labels(tmp_path):
    run = Run()
    run.labels = run.labels[torch.randperm(120, generator=torch.Generator().manual_seed(7))]
    verdict, values, found = verdict_on(run, tmp_path)
    assert verdict.answer == "undecided"
    assert grades(found) == {"SSC": "good", "LPC": "good", "GSQ": "unclear", "eRank": "no collapse"}
    assert "whether they are semantically organized is unclear" in verdict.sentence
    for key in ("gsq", "gsq_encoder", "gsq_random"):
        assert values[key] == pytest.approx(1 / CLASSES, abs=0.13)


def test_twelve_images(tmp_path):
    verdict, _, found = verdict_on(Run(count=12), tmp_path)
    assert verdict.answer == "undecided"
    assert found["GSQ"].grade == "unclear"
    # Draws have six images: two standard errors of a share are at most 1 / sqrt(6).
    (caveat,) = [text for text in verdict.caveats if "GSQ" in text]
    assert "6 of the 12 test images" in caveat
    assert "may be off by 0.41" in caveat


def test_a_collapsed_tokenizer(tmp_path):
    run = Run()
    run.latents = torch.ones_like(run.latents) + 1e-4 * normal(*run.latents.shape, seed=8)
    verdict, values, found = verdict_on(run, tmp_path)
    assert verdict.answer == "no"
    assert found["eRank"].grade == "poor"
    assert values["erank"] * CHANNELS == pytest.approx(1, abs=0.05)
    assert found["SSC"].grade == found["GSQ"].grade == "poor"
    assert values["lpc_other"] < 0.01 < values["distance_images"]


@pytest.mark.parametrize("off", ["lpc", "erank", "ssc"])
def test_one_class(off, tmp_path):
    run = Run()
    run.labels = torch.zeros(120, dtype=torch.int64)
    verdict, values, found = verdict_on(run, tmp_path, gsq=False, **{off: False})
    assert "gsq" not in values
    assert "GSQ" not in found
    assert any("GSQ" in text and "one class" in text for text in verdict.caveats)
    assert "semantically" not in verdict.sentence


def test_one_class_for_gsq(tmp_path):
    run = Run()
    run.labels = torch.zeros(120, dtype=torch.int64)
    with pytest.warns(UserWarning, match="GSQ"):
        verdict, values, _ = verdict_on(run, tmp_path, lpc=False)
    assert not {key for key in values if key.startswith("gsq")}
    assert any("GSQ" in text and "one class" in text for text in verdict.caveats)


def test_pixels_that_show_the_segments_contradict_the_encoder(tmp_path):
    run = Run()
    run.colors = 0.3 * run.prior()[:, :1].repeat(1, 3, 1, 1)
    run.latents[:, SEGMENT] *= 0.55
    verdict, values, found = verdict_on(run, tmp_path, images=15, lpc=False, gsq=False)
    half_way = (values["ssc_random"] + values["ssc_encoder"]) / 2
    assert half_way < values["ssc"] < values["ssc_pixels"]
    assert found["SSC"].grade == "unclear"
    assert "the rules disagree" in found["SSC"].reason
    assert verdict.answer == "undecided"

"""The manifold evaluator on latents whose diagnostics are known."""

from dataclasses import dataclass, field

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pae_evaluators.config import ManifoldConfig
from pae_evaluators.manifold import Manifold

COUNT, CHANNELS, GRID, SIZE = 24, 6, 4, 16


@dataclass
class Material:
    """Every token points along its segment's axis or, in the upper half, along its class's.

    Images show their class in the upper half of the grid and a common background in the lower half.
    """

    labels: Tensor = field(default_factory=lambda: torch.arange(COUNT) % 3)
    one_segment: tuple[int, ...] = ()
    seed: int = 0
    asked: list[int] = field(default_factory=list)

    def protocol_of(self, part: str) -> dict:
        return {"test_data": "made up"} if part == "test_images" else {part: f"the {part}"}

    @property
    def latents(self) -> Tensor:
        axes = torch.eye(CHANNELS)
        z = axes[3].view(1, CHANNELS, 1, 1).repeat(COUNT, 1, GRID, GRID)
        z[:, :, : GRID // 2] = axes[torch.arange(COUNT) % 3][:, :, None, None]
        return z

    @property
    def pooled_features(self) -> Tensor:
        return self.features(torch.arange(COUNT)).mean(1)

    def features(self, indices: Tensor) -> Tensor:
        self.asked.append(len(indices))
        generator = torch.Generator().manual_seed(3)
        return torch.randn(COUNT, GRID * GRID, 9, generator=generator)[indices]

    def masks_of(self, indices: Tensor) -> Tensor:
        masks = torch.zeros(COUNT, SIZE, SIZE, dtype=torch.int64)
        masks[:, : SIZE // 2] = 1
        masks[list(self.one_segment)] = 0
        return masks[indices]

    def decode(self, latents: Tensor) -> Tensor:
        return 2 * latents

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).flatten(1).norm(dim=1)


class NoTokens(Material):
    """GSQ needs the mean token of each image; the tokens of all images could be too many."""

    pooled_features = torch.eye(COUNT)

    def features(self, indices: Tensor) -> Tensor:
        raise AssertionError("no need for tokens")


def evaluate(tmp_path, inputs=None, **parameters):
    found = Manifold(ManifoldConfig(**parameters)).evaluate(inputs or Material(), tmp_path)
    return {metric.name: metric for metric in found}


def test_figures_of_known_latents(tmp_path):
    found = evaluate(tmp_path, draw_images=20)  # so that no class is left with one image
    assert found["manifold/ssc"].value == pytest.approx(1)
    # Linear decoder: 2 * (4 / 13.5) * |z|, and |z| = 4 for 16 unit tokens.
    assert found["manifold/lpc"].value == pytest.approx(2 * 4 / 13.5 * 4, rel=1e-6)
    assert found["manifold/gsq"].value == 1
    # Pooled latents are (e_class + e_3) / 2, eight of each class: the Gram matrix of the three
    # distinct rows has eigenvalues 4, 1, 1 (times 8/4): singular values 2 : 1 : 1.
    assert found["manifold/erank"].value == pytest.approx(2**1.5 / CHANNELS)


def test_random_features_of_the_encoder_know_nothing(tmp_path):
    found = evaluate(tmp_path)
    assert found["manifold/ssc_encoder"].value < 0.4
    assert found["manifold/gsq_encoder"].value < 0.8


def test_tokens_of_the_encoder_are_asked_for_the_images_that_ssc_looks_at(tmp_path):
    inputs = Material()
    evaluate(tmp_path, inputs, images=5, gsq=False)
    assert inputs.asked == [5]
    assert "manifold/gsq_encoder" in evaluate(tmp_path, NoTokens(), ssc=False)


def test_labels_and_directions(tmp_path):
    headings = {m.label: m.higher_is_better for m in evaluate(tmp_path).values()}
    assert headings == {
        "SSC": True,
        "SSC encoder": True,
        "LPC": False,
        "GSQ": True,
        "GSQ encoder": True,
        "eRank": True,
    }


def test_diagnostics_can_be_turned_off(tmp_path):
    everything = evaluate(tmp_path)
    off = {"ssc": False, "gsq": False, "erank": False}
    assert evaluate(tmp_path, **off) == {"manifold/lpc": everything["manifold/lpc"]}
    assert evaluate(tmp_path, lpc=False, **off) == {}


def test_masks_are_needed_for_ssc_only():
    assert ManifoldConfig().needs == {"latents", "masks"}
    assert ManifoldConfig(ssc=False).needs == {"latents"}


def test_images_with_one_segment_are_skipped_and_counted(tmp_path):
    found = evaluate(tmp_path, Material(one_segment=(0, 5)))["manifold/ssc"]
    assert found.value == pytest.approx(1)
    assert found.protocol["count"] == COUNT - 2
    assert found.protocol["skipped"].startswith("2 images")


def test_ssc_is_left_out_where_no_image_has_segments(tmp_path):
    with pytest.warns(UserWarning, match=r"SSC( encoder)? .* 24 masks"):
        found = evaluate(tmp_path, Material(one_segment=tuple(range(COUNT))))
    assert "manifold/ssc" not in found
    assert "manifold/lpc" in found


def test_gsq_is_left_out_where_all_images_are_of_one_class(tmp_path):
    with pytest.warns(UserWarning, match="GSQ"):
        found = evaluate(tmp_path, Material(labels=torch.full((COUNT,), 2)))
    assert not {"manifold/gsq", "manifold/gsq_encoder"} & found.keys()
    assert {"manifold/lpc", "manifold/erank"} <= found.keys()


def test_protocols_hold_what_a_comparison_needs(tmp_path):
    found = evaluate(tmp_path, images=10, sigma=0.3, rhos=(0.5, 1.0), directions=2, draws=4)
    ssc, lpc, gsq = (found[f"manifold/{name}"].protocol for name in ("ssc", "lpc", "gsq"))
    for metric in found.values():
        assert metric.protocol["test_data"] == "made up"
    assert (ssc["count"], ssc["sigma"], ssc["seed"]) == (10, 0.3, 0)
    assert "scikit-learn" in ssc
    assert (lpc["count"], lpc["rhos"], lpc["directions"]) == (10, [0.5, 1.0], 2)
    assert lpc["weights"] == pytest.approx([2 / 3, 1 / 3], abs=1e-6)
    assert (gsq["count"], gsq["of"], gsq["classes"], gsq["draws"]) == (12, COUNT, 3, 4)
    assert lpc["perceptual"] == "the perceptual"
    assert found["manifold/erank"].protocol["count"] == COUNT
    assert "seed" not in found["manifold/erank"].protocol


def test_what_is_measured_is_the_tokenizer_or_the_encoder(tmp_path):
    for name, metric in evaluate(tmp_path).items():
        part = "encoder" if name.endswith("_encoder") else "tokenizer"
        assert metric.subject[part] == f"the {part}"
        assert not {"tokenizer", "encoder"} & metric.protocol.keys()


def test_gsq_is_a_mean_with_its_deviation_over_draws(tmp_path):
    scattered = Material(labels=torch.randint(2, (COUNT,), generator=torch.Generator()))
    found = evaluate(tmp_path, scattered)["manifold/gsq"]
    assert 0 < found.value < 1
    assert found.std > 0


def test_draws_that_hold_all_images_are_one_draw(tmp_path):
    found = evaluate(tmp_path, draw_images=1000)["manifold/gsq"]
    assert found.std is None
    assert (found.protocol["draws"], found.protocol["count"]) == (1, COUNT)


def test_the_seed_decides(tmp_path):
    bent = Material(labels=torch.arange(COUNT) % 2)
    bent.decode = torch.tanh
    other = Material(labels=bent.labels, seed=1)
    other.decode = torch.tanh
    first, again = (evaluate(tmp_path, bent, images=8) for _ in range(2))
    second = evaluate(tmp_path, other, ssc=False, images=8)
    assert first == again
    assert first["manifold/lpc"].value != second["manifold/lpc"].value


@pytest.mark.parametrize(
    "wrong", [{"rhos": []}, {"rhos": [0.0]}, {"sigma": 0.0}, {"draws": 0}, {"image": 3}]
)
def test_parameters_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        ManifoldConfig(**wrong)

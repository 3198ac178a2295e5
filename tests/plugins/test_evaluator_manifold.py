"""The manifold evaluator on latents whose diagnostics are known."""

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from pae_evaluators.config import ManifoldConfig
from pae_evaluators.manifold import Manifold
from pae_framework.layers import map_to_tokens, unpatchify

COUNT, CHANNELS, GRID, PATCH = 24, 6, 4, 4
SIZE = GRID * PATCH


@dataclass
class Material:
    """Every token points along its segment's axis or, in the upper half, along its class's.

    Images show their class in the upper half of the grid and a common background in the lower half.
    """

    labels: Tensor = field(default_factory=lambda: torch.arange(COUNT) % 3)
    one_segment: tuple[int, ...] = ()
    seed: int = 0
    asked: list[int] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    def protocol_of(self, part: str) -> dict:
        return {"test_data": "made up"} if part == "test_images" else {part: f"the {part}"}

    @property
    def images(self) -> Tensor:
        generator = torch.Generator().manual_seed(4)
        return torch.randint(256, (COUNT, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)

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
        """Linear: two times the channels of a token are the first numbers of its patch."""
        patches = F.pad(map_to_tokens(2 * latents), (0, 3 * PATCH**2 - CHANNELS))
        return unpatchify(patches, PATCH)

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).flatten(1).norm(dim=1)


class Many(Material):
    """More images than the references are computed for."""

    def __init__(self):
        super().__init__(labels=torch.arange(120) % 3)

    @property
    def images(self) -> Tensor:
        return super().images.repeat(5, 1, 1, 1)

    @property
    def latents(self) -> Tensor:
        return super().latents.repeat(5, 1, 1, 1)

    @property
    def pooled_features(self) -> Tensor:
        return torch.eye(120)


class NoTokens(Material):
    """GSQ needs the mean token of each image; the tokens of all images could be too many."""

    pooled_features = torch.eye(COUNT)

    def features(self, indices: Tensor) -> Tensor:
        raise AssertionError("no need for tokens")


def evaluate(tmp_path, inputs=None, **parameters):
    """The metrics by name; SSC and LPC of six images unless ``images`` says otherwise."""
    config = ManifoldConfig(**{"images": 6, **parameters})
    found = Manifold(config).evaluate(inputs or Material(), tmp_path)
    return {metric.name: metric for metric in found}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The metrics of the material, with the settings that most tests use."""
    return evaluate(tmp_path_factory.mktemp("found"))


def is_reference(metric):
    return "reference" in metric.subject


def test_figures_of_known_latents(tmp_path):
    found = evaluate(tmp_path, draw_images=20)  # so that no class is left with one image
    assert found["manifold/ssc"].value == pytest.approx(1)
    # Linear decoder: 2 * (4 / 13.5) * |z|, and |z| = 4 for 16 unit tokens.
    assert found["manifold/lpc"].value == pytest.approx(2 * 4 / 13.5 * 4, rel=1e-6)
    assert found["manifold/gsq"].value == 1
    # Pooled latents are (e_class + e_3) / 2, eight of each class: the Gram matrix of the three
    # distinct rows has eigenvalues 4, 1, 1 (times 8/4): singular values 2 : 1 : 1.
    assert found["manifold/erank"].value == pytest.approx(2**1.5 / CHANNELS)


def test_random_features_of_the_encoder_know_nothing(found):
    assert found["manifold/ssc_encoder"].value < 0.4
    assert found["manifold/gsq_encoder"].value < 0.8


def test_tokens_of_the_encoder_are_asked_for_the_images_that_ssc_looks_at(tmp_path):
    inputs = Material()
    evaluate(tmp_path, inputs, images=5, gsq=False)
    assert inputs.asked == [5]
    assert "manifold/gsq_encoder" in evaluate(tmp_path, NoTokens(), ssc=False)


def test_labels_and_directions(found):
    assert {m.label: m.higher_is_better for m in found.values() if not is_reference(m)} == {
        "SSC": True,
        "SSC encoder": True,
        "LPC": False,
        "GSQ": True,
        "GSQ encoder": True,
        "eRank": True,
    }


def test_diagnostics_can_be_turned_off(found, tmp_path):
    off = {"ssc": False, "gsq": False, "erank": False}
    assert evaluate(tmp_path, **off) == {
        name: metric for name, metric in found.items() if "lpc" in name or "distance" in name
    }
    assert evaluate(tmp_path, lpc=False, **off) == {}


def test_masks_are_needed_for_ssc_only():
    assert ManifoldConfig().needs == {"latents", "masks"}
    assert ManifoldConfig(ssc=False).needs == {"latents"}


def test_images_with_one_segment_are_skipped_and_counted(tmp_path):
    found = evaluate(tmp_path, Material(one_segment=(0, 5)), images=COUNT)["manifold/ssc"]
    assert found.value == pytest.approx(1)
    assert found.protocol["count"] == COUNT - 2
    assert found.protocol["skipped"].startswith("2 images")


def test_ssc_is_left_out_where_no_image_has_segments(tmp_path):
    with pytest.warns(UserWarning, match=r"SSC( encoder)? .* 24 masks"):
        found = evaluate(tmp_path, Material(one_segment=tuple(range(COUNT))), images=COUNT)
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


def test_what_is_measured_is_the_tokenizer_or_the_encoder(found):
    for name, metric in found.items():
        if is_reference(metric):
            continue
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
    other = Material(labels=bent.labels, seed=1)
    bent.decode = other.decode = lambda latents: Material().decode(latents).tanh()
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


# --- references -----------------------------------------------------------------------------------


def test_references_say_what_they_are_and_how_they_were_measured(found):
    references = {name: metric for name, metric in found.items() if is_reference(metric)}
    assert {name.removeprefix("manifold/"): m.label for name, m in references.items()} == {
        "ssc_random": "SSC random",
        "ssc_pixels": "SSC pixels",
        "lpc_pixels": "LPC pixels",
        "lpc_other": "LPC another latent",
        "distance_own": "Distance to own image",
        "distance_other": "Distance to another image",
        "distance_images": "Distance between images",
        "gsq_random": "GSQ random",
        "gsq_pixels": "GSQ pixels",
        "erank_random": "eRank random",
        "erank_pixels": "eRank pixels",
    }
    for kind in ("random", "pixels"):
        own, reference = (found[f"manifold/{x}"].protocol for x in ("ssc", f"ssc_{kind}"))
        assert reference == own | {"of_classes": 3}
    assert not {"tokenizer", "encoder"} & found["manifold/gsq_random"].subject.keys()
    assert found["manifold/lpc_other"].subject["tokenizer"] == "the tokenizer"


def test_random_latents_are_at_chance(tmp_path):
    found = evaluate(tmp_path, images=COUNT, lpc=False, draw_images=1000)
    # 7 of the 23 other images have the same of three classes; four deviations of 24 draws.
    chance = 7 / (COUNT - 1)
    allowed = 4 * (chance * (1 - chance) / COUNT) ** 0.5
    assert found["manifold/gsq_random"].value == pytest.approx(chance, abs=allowed)
    assert found["manifold/ssc_random"].value < 0.3 < found["manifold/ssc"].value
    assert found["manifold/erank_random"].value > 0.8


class Painted(Material):
    """Images whose patches have the color of their segment: the mask is in the pixels."""

    @property
    def images(self) -> Tensor:
        return (255 * self.masks_of(torch.arange(COUNT)))[:, None].repeat(1, 3, 1, 1).byte()


def test_components_of_pixels_find_segments_of_one_color(tmp_path):
    found = evaluate(tmp_path, Painted(), lpc=False, gsq=False)
    assert found["manifold/ssc_pixels"].value == pytest.approx(1)
    # Pooled, all images are alike, so one direction suffices.
    assert found["manifold/erank_pixels"].value == pytest.approx(1 / CHANNELS)


class Ignores(Material):
    """A decoder whose image is the same for every latent."""

    def decode(self, latents: Tensor) -> Tensor:
        return torch.full((len(latents), 3, SIZE, SIZE), 0.5)


def test_a_decoder_that_ignores_latents_shows_in_the_distances(tmp_path):
    found = evaluate(tmp_path, Ignores(), ssc=False, gsq=False)
    assert found["manifold/lpc"].value == found["manifold/lpc_other"].value == 0
    assert found["manifold/distance_own"].value == pytest.approx(
        found["manifold/distance_other"].value
    )
    assert found["manifold/distance_images"].value > 1
    assert found["manifold/lpc_pixels"].value > 1


def test_references_cost_few_images(tmp_path):
    found = evaluate(tmp_path, Many(), ssc=False, images=120, draws=3, draw_images=60)
    assert found["manifold/lpc"].protocol["count"] == 120
    assert found["manifold/lpc_pixels"].protocol["count"] == 50
    assert found["manifold/lpc_other"].protocol["count"] == 50
    assert found["manifold/gsq_pixels"].protocol["draws"] == 1
    assert found["manifold/gsq"].protocol["draws"] == 3


def test_deviations_of_references_are_over_images(found):
    assert found["manifold/lpc"].std is None
    assert found["manifold/distance_images"].std > 0


def test_one_image_has_no_other(tmp_path):
    found = evaluate(tmp_path, images=1)
    assert "manifold/lpc_pixels" in found
    assert not [name for name in found if "distance" in name or "other" in name]
    assert found["manifold/lpc_pixels"].std is None

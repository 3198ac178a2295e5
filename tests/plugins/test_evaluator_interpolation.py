"""iFID: slerp half-way to a near training latent, decoded and compared with the test images."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from pae_evaluators import interpolation, nearest_latents
from pae_evaluators.config import InterpolationConfig
from pae_evaluators.interpolation import Interpolation, slerp
from pae_evaluators.nearest_latents import draw_neighbors
from pae_framework.errors import DataError


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Rows:
    """Training latents in memory, which count what is read at once."""

    def __init__(self, latents: Tensor):
        self.latents, self.largest = latents, 0

    def __len__(self) -> int:
        return len(self.latents)

    def read(self, indices: Tensor) -> Tensor:
        self.largest = max(self.largest, len(indices))
        return self.latents[indices]


# --- slerp ----------------------------------------------------------------------------------------


def latent(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # sin(45) / sin(90) = 1 / sqrt 2
        (latent(1, 0), latent(0, 1), [math.sqrt(0.5), math.sqrt(0.5)]),
        (latent(3, 0), latent(0, 1), [3 * math.sqrt(0.5), math.sqrt(0.5)]),
        # 60 degrees: sin(30) / sin(60) = 1 / sqrt 3
        (latent(1, 0), latent(0.5, math.sqrt(3) / 2), [math.sqrt(3) / 2, 0.5]),
        (latent(2, 1), latent(2, 1), [2, 1]),
        (latent(2, 1), latent(4, 2), [3, 1.5]),
        # There are many arcs to the opposite.
        (latent(2, 1), latent(-2, -1), [0, 0]),
        (latent(0, 0), latent(0, 0), [0, 0]),
    ],
)
def test_slerp_by_hand(a, b, expected):
    assert slerp(a, b).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_the_angle_is_that_of_the_whole_latent():
    # Two tokens: one stays, one turns by 90 degrees. The whole latent turns by 60 degrees.
    a = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    expected = (a + b) / math.sqrt(3)
    torch.testing.assert_close(slerp(a, b), expected)


@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_half_way_is_as_long_as_both_ends_and_equally_far(seed, length):
    a, b = normal(2, 3, 4, 2, 2, seed=seed)
    a, b = (length * x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for x in (a, b))
    middle = slerp(a, b)
    for x in (middle, slerp(b, a)):
        torch.testing.assert_close(
            x.flatten(1).norm(dim=1), torch.full((3,), length), rtol=1e-4, atol=0
        )
    to_a, to_b = ((middle * x).flatten(1).sum(1) for x in (a, b))
    torch.testing.assert_close(to_a, to_b, rtol=1e-3, atol=1e-4 * length**2)


# --- nearest latents ------------------------------------------------------------------------------


def by_hand(queries: Tensor, rows: Tensor, count: int) -> list[list[int]]:
    q, r = (x.flatten(1).double() for x in (queries, rows))
    cosines = (q @ r.T) / (q.norm(dim=1)[:, None] * r.norm(dim=1))
    return cosines.argsort(dim=1, descending=True)[:, :count].tolist()


@pytest.mark.parametrize(("queries", "rows"), [(1 << 27, 1 << 25), (7 * 16, 5 * 16), (1, 1)])
@pytest.mark.parametrize("count", [1, 4, 23])
def test_the_nearest_by_cosine_whatever_is_in_memory_at_once(monkeypatch, queries, rows, count):
    monkeypatch.setattr(nearest_latents, "_QUERIES", queries)
    monkeypatch.setattr(nearest_latents, "_ROWS", rows)
    test, train = normal(20, 4, 2, 2), Rows(normal(23, 4, 2, 2, seed=1))
    train.latents[5] *= 100  # its length does not matter
    found = nearest_latents.nearest_latents(test, train, count)
    assert found.tolist() == by_hand(test, train.latents, count)
    assert train.largest <= max(1, rows // 16)


def test_neighbors_are_drawn_by_their_differences():
    # softmax(-0) : softmax(-ln 3) = 3 : 1; one at infinity is never drawn.
    differences = torch.tensor([0, math.log(3), math.inf]).expand(4000, -1)
    drawn = draw_neighbors(differences, 0, range(4000))
    assert (drawn == 0).double().mean().item() == pytest.approx(0.75, abs=0.03)
    assert drawn.max() == 1


def test_what_is_drawn_for_an_image_depends_on_the_seed_and_its_index_only():
    differences = torch.zeros(100, 10)
    drawn = draw_neighbors(differences, 3, range(100))
    assert len(drawn.unique()) == 10
    some = [70, 3, 11]
    assert draw_neighbors(differences[some], 3, some).tolist() == drawn[some].tolist()
    assert draw_neighbors(differences, 4, range(100)).tolist() != drawn.tolist()


# --- the evaluator --------------------------------------------------------------------------------


class MeanColor:
    """Features are the three mean colors; also in Inception's place."""

    name, sha256, widths = "mean_color", "6726825d" + "0" * 56, (3, 3)

    protocol: ClassVar[dict] = {}

    def __init__(self):
        self.largest = 0

    def label(self, label: str) -> str:
        return label

    def __call__(self, images: Tensor) -> Tensor:
        self.largest = max(self.largest, len(images))
        return images.double().mean((2, 3))


class Inception(MeanColor):
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        colors = super().__call__(images).float()
        return colors, colors


@dataclass
class Material:
    """Images of one color, whose latents are the color: 10 levels apart, from 10 to 200."""

    train_latents: Rows
    images: Tensor
    seed: int = 0
    unavailable: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    extractor: MeanColor = field(default_factory=MeanColor)
    network: Inception = field(default_factory=Inception)

    def protocol_of(self, part: str) -> dict:
        images = {"test_images": "test_data", "training_images": "training_data"}
        return {images[part]: "made up"} if part in images else {part: f"the {part}"}

    @property
    def indices(self) -> range:
        return range(0, 2 * len(self.images), 2)

    @property
    def latents(self) -> Tensor:
        return self.images[:, :, :1, :1].float()

    @property
    def image_features(self) -> Tensor:
        return self.images.double().mean((2, 3))

    def inception(self, weights: str) -> Inception:
        return self.network

    def decode(self, latents: Tensor) -> Tensor:
        return (latents.expand(-1, -1, 4, 4) + 0.25) / 255


def images(count: int = 60) -> Tensor:
    levels = torch.randint(1, 21, (count, 3), generator=torch.Generator().manual_seed(0))
    levels[:, 0] = torch.arange(count) % 20 + 1
    return (10 * levels.view(count, 3, 1, 1).expand(-1, -1, 4, 4)).to(torch.uint8)


def evaluate(tmp_path, inputs, **parameters):
    return Interpolation(InterpolationConfig(**parameters)).evaluate(inputs, tmp_path)


def brighter(factor: float) -> Material:
    """The nearest training latent of an image is its own one, longer."""
    pixels = images()
    return Material(Rows(factor * pixels[:, :, :1, :1].float()), pixels)


def test_the_distance_of_brighter_images_by_hand(tmp_path):
    # Half-way to 1.2 z is 1.1 z. Features f become 1.1 f: the means are 0.1 |m| apart, and the
    # deviations, in common directions, by a tenth.
    (metric,) = evaluate(tmp_path, brighter(1.2), neighbors=1)
    colors = images().double().mean((2, 3))
    expected = 0.01 * (colors.mean(0).square().sum() + colors.var(0).sum()).item()
    assert metric.value == pytest.approx(expected, rel=1e-6)
    assert metric.name == "interpolation/fd_mean_color"
    assert metric.label == "iFD"
    assert not metric.higher_is_better


def test_ifid_is_the_distance_in_inception_if_weights_are_asked_for(tmp_path):
    inputs = brighter(1.2)
    found = {metric.label: metric for metric in evaluate(tmp_path, inputs, weights="a.pth")}
    assert set(found) == {"iFD", "iFID"}
    assert found["iFID"].name == "interpolation/fid"
    assert found["iFID"].value == pytest.approx(found["iFD"].value, rel=1e-5)
    inputs.network.sha256 = "none"
    _, random = evaluate(tmp_path, inputs, weights="none")
    assert random.label == "iFD (random Inception)"


def test_the_protocol(tmp_path):
    for metric in evaluate(tmp_path, brighter(1.2), neighbors=3, weights="a.pth"):
        told = metric.protocol
        assert told["test_data"] == told["training_data"] == "made up"
        assert metric.subject == {"tokenizer": "the tokenizer"}
        assert "tokenizer" not in told
        assert told["training_latents"] == 60
        assert "slerp half-way" in told["interpolation"]
        assert "one of the 3 nearest" in told["neighbor"]
        assert told["reference"] == "test images"
        assert (told["count"], told["reference_count"]) == (60, 60)


def test_neither_batches_nor_parts_change_the_result(tmp_path, monkeypatch):
    expected = evaluate(tmp_path, brighter(1.2), neighbors=5)
    monkeypatch.setattr(interpolation, "BATCH", 7)
    monkeypatch.setattr(interpolation, "PART", 21)
    inputs = brighter(1.2)
    assert [m.value for m in evaluate(tmp_path, inputs, neighbors=5)] == pytest.approx(
        [m.value for m in expected], rel=1e-9
    )
    assert inputs.extractor.largest == 21
    assert inputs.train_latents.largest <= 60


def test_the_seed_chooses_the_neighbors(tmp_path):
    first, same, other = (
        evaluate(tmp_path, inputs, neighbors=20)[0].value
        for inputs in (near_copies(0), near_copies(0), near_copies(1))
    )
    assert first == same
    assert first != other


def near_copies(seed: int) -> Material:
    """Twenty training latents near that of each image."""
    pixels = images()
    latents = pixels[:, :, :1, :1].float().repeat_interleave(20, 0)
    return Material(Rows(latents + 0.3 * normal(*latents.shape)), pixels, seed)


def test_test_images_among_the_training_images_are_noticed(tmp_path, caplog):
    inputs = brighter(1.2)
    inputs.train_latents.latents[:9] = inputs.latents[:9]
    evaluate(tmp_path, inputs, neighbors=1)
    assert "9 of 60 test images are among the training images" in caplog.text


def test_fewer_training_latents_than_neighbors(tmp_path):
    inputs = brighter(1.2)
    inputs.train_latents.latents = inputs.train_latents.latents[:7]
    with pytest.raises(DataError, match=r"`neighbors` is 10, but there are 7"):
        evaluate(tmp_path, inputs)


def test_settings():
    assert InterpolationConfig().neighbors == 10
    assert InterpolationConfig().needs == {"latents", "train_latents", "extractor"}
    assert "inception" in InterpolationConfig(weights="default").needs
    smoke = InterpolationConfig(weights="default").smoke()
    assert (smoke.weights, smoke.neighbors) == ("none", 2)
    assert InterpolationConfig().smoke().weights is None
    with pytest.raises(ValidationError):
        InterpolationConfig(neighbors=0)

from __future__ import annotations

import math

import pytest
import torch
from tokenizer_fakes import FakeEncoder, fake_encoder
from torch import Tensor

from pae_framework.errors import UsageError
from pae_framework.tokenizer.losses.perceptual import (
    CachedFeatures,
    PerceptualDistance,
)
from pae_framework.tokenizer.tokenizer_settings import PerceptualSettings


class Given(FakeEncoder):
    """An encoder whose feature maps are what a test says, by the value of the first pixel."""

    maps: dict[float, list[Tensor]]

    def normalize(self, images: Tensor) -> Tensor:
        return images

    def feature_maps(self, pixels: Tensor) -> list[Tensor]:
        return self.maps[pixels.flatten()[0].item()]


@pytest.fixture
def given_maps(encoder: FakeEncoder) -> Given:
    """Two layers of 2 tokens and of 1 token, for images 0 and 1."""
    given = Given(encoder.config, 16)  # type: ignore[arg-type]
    given.maps = {
        0.0: [torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[[1.0, 1.0]]])],
        1.0: [torch.tensor([[[0.0, 5.0], [0.0, 7.0]]]), torch.tensor([[[3.0, 0.0]]])],
    }
    return given


def image(value: float) -> Tensor:
    return torch.full((1, 3, 16, 16), value)


# Layer 0: orthogonal tokens are |e1 - e2|^2 = 2 apart, parallel ones 0: mean 1.
# Layer 1: 45 degrees apart: 2 - 2 cos 45.
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, (1.0 + 2 - math.sqrt(2)) / 2),
        ((0,), 1.0),
        ((1,), 2 - math.sqrt(2)),
        ((1, 0), (1.0 + 2 - math.sqrt(2)) / 2),
    ],
)
def test_value_by_hand(given_maps: Given, layers: tuple[int, ...] | None, expected: float) -> None:
    distance = PerceptualDistance(given_maps, layers=None)
    distance.layers = layers
    assert distance(image(0), image(1)).item() == pytest.approx(expected, rel=1e-6)


def test_one_distance_per_image(encoder: FakeEncoder, images: Tensor) -> None:
    distance = PerceptualDistance(encoder)
    other = torch.rand_like(images)
    whole = distance(images, other)
    assert whole.shape == (3,)
    parts = [distance(images[i : i + 1], other[i : i + 1])[0] for i in range(3)]
    torch.testing.assert_close(whole, torch.stack(parts))


def test_is_zero_for_equal_images_and_symmetric(encoder: FakeEncoder, images: Tensor) -> None:
    distance = PerceptualDistance(encoder)
    other = torch.rand_like(images)
    assert not distance(images, images).any()
    assert torch.equal(distance(images, other), distance(other, images))
    assert (distance(images, other) > 0).all()


def test_images_are_not_clamped(encoder: FakeEncoder) -> None:
    distance = PerceptualDistance(encoder)
    assert distance(image(1.0), image(1.5)).item() > 0


def test_gradient_reaches_the_image_and_no_weight(encoder: FakeEncoder, images: Tensor) -> None:
    images.requires_grad_()
    PerceptualDistance(encoder)(images, torch.rand_like(images)).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_a_layer_the_encoder_does_not_have_is_refused(encoder: FakeEncoder) -> None:
    with pytest.raises(UsageError, match=r"perceptual\.layers: .* 2; .* 0 to 1"):
        PerceptualDistance(encoder, layers=(0, 2))
    with pytest.raises(UsageError, match=r"perceptual\.layers=null"):
        PerceptualDistance(encoder, layers=())


def test_a_recipe_chooses_the_layers(given_maps: Given) -> None:
    distance = PerceptualDistance(given_maps, PerceptualSettings().layers)
    assert distance(image(0), image(1)).item() == pytest.approx((3 - math.sqrt(2)) / 2, rel=1e-6)
    with pytest.raises(UsageError, match="layer 5"):
        PerceptualDistance(fake_encoder(), (5,))


class TestRemembered:
    """Reconstruction x against the image, then y against a stop-gradient of x."""

    def terms(self, compare: object, images: Tensor, x: Tensor, y: Tensor) -> Tensor:
        assert callable(compare)
        return compare(x, images).sum() + 2 * compare(y, x.detach()).sum()

    def test_values_and_gradients_are_the_same(self, encoder: FakeEncoder, images: Tensor) -> None:
        distance = PerceptualDistance(encoder)
        x, y = torch.rand_like(images), torch.rand_like(images)
        results = []
        for compare in (distance, CachedFeatures(distance)):
            leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
            total = self.terms(compare, images, leaves[0] * 1, leaves[1] * 1)
            total.backward()
            results.append((total.detach(), leaves[0].grad, leaves[1].grad))
        for plain, remembered in zip(*results, strict=True):
            assert torch.equal(plain, remembered)

    def test_each_image_is_encoded_once(self, encoder: FakeEncoder, images: Tensor) -> None:
        compare = CachedFeatures(PerceptualDistance(encoder))
        x, y = (torch.rand_like(images).requires_grad_() for _ in range(2))
        self.terms(compare, images, x, y)
        assert encoder.map_calls == 3

    def test_an_image_that_now_needs_a_gradient_is_encoded_again(
        self, encoder: FakeEncoder, images: Tensor
    ) -> None:
        compare = CachedFeatures(PerceptualDistance(encoder))
        x = torch.rand_like(images).requires_grad_()
        compare(x.detach(), images)
        assert compare(x, images).requires_grad

    def test_detached_features_are_constants_and_encoded_again_for_a_gradient(
        self, encoder: FakeEncoder, images: Tensor
    ) -> None:
        compare = CachedFeatures(PerceptualDistance(encoder))
        x = torch.rand_like(images).requires_grad_()
        compare(x, images).sum().backward()  # releases the graph
        compare.detach()
        assert not compare(x.detach(), images).requires_grad
        assert encoder.map_calls == 2
        expected, x.grad = x.grad, None
        compare(x, images).sum().backward()
        assert expected is not None
        assert x.grad is not None
        assert torch.equal(x.grad, expected)
        assert encoder.map_calls == 3

"""Principal components of pixels, random latents, and pairs of images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_evaluators.latent_references import PixelComponents, other_images, random_latents
from pae_framework.data.pixels import to_float
from pae_framework.layers import patchify


def images(count: int, side: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def test_patches_along_one_line_are_described_by_one_component():
    # Every patch is a gray level, constant over its 2 x 2 pixels.
    levels = torch.tensor([0, 50, 150, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    flat = levels.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat(1, 3, 1, 1)
    found = PixelComponents.of(flat, grid=2, channels=1)
    torch.testing.assert_close(found.decode(found.encode(flat)), to_float(flat))
    # A gray step is sqrt(12) times as long in the 12 numbers of a patch.
    latents = found.encode(flat).flatten()
    assert (latents[3] - latents[0]).abs().item() == pytest.approx(12**0.5, rel=1e-5)


@pytest.mark.parametrize(("side", "grid", "channels"), [(8, 4, 12), (8, 4, 50), (12, 3, 48)])
def test_all_components_lose_nothing(side, grid, channels):
    some = images(20, side)
    found = PixelComponents.of(some, grid, channels)
    assert found.channels == 3 * (side // grid) ** 2
    torch.testing.assert_close(
        found.decode(found.encode(some)), to_float(some), atol=1e-4, rtol=1e-4
    )


def test_the_first_components_have_the_largest_variance():
    some = images(30, 8) // torch.tensor([1, 4, 16], dtype=torch.uint8)[None, :, None, None]
    variances = PixelComponents.of(some, 4, 12).encode(some).var((0, 2, 3))
    assert (variances.diff() <= 1e-6).all()


@pytest.mark.parametrize("channels", [1, 6])
def test_few_components_are_those_of_a_full_decomposition(channels):
    some = images(40, 16) // torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 1, 16)
    rows = patchify(to_float(some), 8).flatten(0, 1).double()
    expected = torch.linalg.svd(rows - rows.mean(0)).Vh[:channels].T
    found = PixelComponents.of(some, 2, channels).components.double()
    # Both are orthonormal, so this is the identity if they span the same space.
    overlap = torch.linalg.svdvals(expected.T @ found)
    torch.testing.assert_close(overlap, torch.ones_like(overlap), atol=1e-3, rtol=0)


def test_few_components_of_large_patches_need_no_full_decomposition(monkeypatch):
    sizes = []
    eigh = torch.linalg.eigh

    def noted(matrix):
        sizes.append(len(matrix))
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", noted)
    PixelComponents.of(images(2, 32), 1, 4)
    assert max(sizes) < 3 * 32**2 / 10


@pytest.mark.parametrize("channels", [1, 8])
def test_components_of_images_that_are_all_alike_are_orthonormal(channels):
    gray = torch.full((3, 3, 16, 16), 128, dtype=torch.uint8)
    found = PixelComponents.of(gray, 2, channels)
    torch.testing.assert_close(found.components.T @ found.components, torch.eye(channels))
    assert found.encode(gray).abs().max() < 1e-5


def test_a_grid_that_does_not_divide_the_side_gives_images_of_that_side():
    some = images(5, 14)
    found = PixelComponents.of(some, grid=4, channels=6)
    latents = found.encode(some)
    assert latents.shape == (5, 6, 4, 4)
    assert found.decode(latents).shape == (5, 3, 14, 14)


def test_pooled_latents_are_the_mean_of_the_tokens():
    some = images(600, 4)  # more than are floats at once
    found = PixelComponents.of(some, grid=2, channels=5)
    torch.testing.assert_close(found.pooled(some), found.encode(some).mean((2, 3)))


@settings(max_examples=25)
@given(count=st.integers(2, 60), seed=st.integers(0, 1000))
def test_every_image_is_paired_with_another(count, seed):
    others = other_images(count, seed)
    assert sorted(others.tolist()) == list(range(count))
    assert (others != torch.arange(count)).all()


def test_random_latents_depend_on_the_seed_only():
    assert torch.equal(random_latents(3, 4, seed=1), random_latents(3, 4, seed=1))
    assert not torch.equal(random_latents(3, 4, seed=1), random_latents(3, 4, seed=2))

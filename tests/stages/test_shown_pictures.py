"""What a report computes: nearest training images, rotated latents, clusters of tokens."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.evaluation.latent_pictures import cluster_maps, rotated_images
from pae_framework.evaluation.nearest_images import nearest_images, small_pixels


class Levels(DataSource):
    """Image i shows the gray value of i everywhere."""

    class_names = ("all",)

    def __init__(self, levels, side=2):
        super().__init__(DataSourceConfig(), side)
        self.levels, self.side = levels, side

    def __len__(self):
        return len(self.levels)

    def __getitem__(self, index):
        level = self.levels[index]
        return LabeledImage(torch.full((3, self.side, self.side), level, dtype=torch.uint8), 0)


def flat_images(*values, side=2):
    return torch.stack([torch.full((3, side, side), value, dtype=torch.uint8) for value in values])


def shown(images):
    return images[..., 0, 0, 0].tolist()


def test_the_nearest_images_by_hand():
    source = Levels([0, 10, 20, 30, 200])
    found = nearest_images(flat_images(12, 255), source, range(5), small_pixels, 2)
    assert shown(found) == [[10, 20], [200, 30]]


def test_only_the_given_images_are_looked_at():
    source = Levels([0, 10, 20, 30, 200])
    found = nearest_images(flat_images(12), source, [0, 4], small_pixels, 3)
    assert shown(found) == [[0, 200]]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=300), st.integers(0, 255))
def test_the_nearest_images_are_those_of_a_sort_whatever_the_batches(levels, wanted):
    found = nearest_images(flat_images(wanted), Levels(levels), range(len(levels)), small_pixels, 3)
    distances = sorted(abs(level - wanted) for level in levels)[:3]
    assert [abs(level - wanted) for level in shown(found)[0]] == distances


def test_training_images_are_looked_at_in_batches():
    sizes = []

    def features(images):
        sizes.append(len(images))
        return small_pixels(images)

    nearest_images(flat_images(1, 2), Levels([0] * 1000), range(1000), features, 2)
    assert max(sizes) <= 64
    assert sum(sizes) == 2 + 1000


def test_small_pixels_average_larger_images():
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[:, :, ::2, ::2] = 255
    assert small_pixels(image).unique().tolist() == [0.25]
    assert small_pixels(image).shape == (1, 3 * 32 * 32)
    assert small_pixels(image[..., :8, :8]).shape == (1, 3 * 8 * 8)


def decoded_identically(latents):
    return latents


def test_an_angle_of_zero_decodes_the_latents_themselves():
    latents = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    still, turned = rotated_images(latents, decoded_identically, (0, 85), seed=0)
    assert still.equal((latents * 255).to(torch.uint8))
    assert not turned.equal(still)


def test_rotations_keep_norms_and_turn_by_their_angle_in_one_plane():
    seen = []
    latents = torch.randn(3, 5, 2, 2, generator=torch.Generator().manual_seed(0))

    def decode(z):
        seen.append(z)
        return torch.zeros(len(z), 3, 2, 2)

    degrees = (0, 30, 60, 85)
    assert rotated_images(latents, decode, degrees, seed=0).shape == (4, 3, 3, 2, 2)
    for angle, z in zip(degrees, seen, strict=True):
        torch.testing.assert_close(z.norm(dim=1), latents.norm(dim=1))
        cosine = torch.cosine_similarity(z, latents, dim=1)
        expected = torch.full_like(cosine, math.cos(math.radians(angle)))
        torch.testing.assert_close(cosine, expected)
    # 60 degrees are twice 30 degrees in the same plane
    torch.testing.assert_close(seen[2], 2 * math.cos(math.pi / 6) * seen[1] - latents)


def test_tokens_of_two_kinds_fall_into_two_clusters_in_all_images():
    kinds = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0]])  # (M, N)
    noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    tokens = torch.where(kinds[..., None] == 1, 10.0, -10.0) + noise
    # the larger cluster is 0
    assert cluster_maps(tokens, 2, seed=0).equal(kinds.view(2, 2, 2))


def test_clusters_do_not_depend_on_chance():
    tokens = torch.randn(4, 16, 3, generator=torch.Generator().manual_seed(0))
    assert cluster_maps(tokens, 6, seed=3).equal(cluster_maps(tokens, 6, seed=3))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_equal_tokens_and_those_of_a_diverged_run_are_one_cluster(value):
    tokens = torch.full((2, 4, 3), value)
    assert cluster_maps(tokens, 6, seed=0).unique().tolist() == [0]

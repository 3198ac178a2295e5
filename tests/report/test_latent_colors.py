"""Latents as colors: principal components with known answers."""

import pytest
import torch
from sklearn.decomposition import PCA

from pae_framework.report.colors import latent_colors, principal_components


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rank_one(count=3, channels=6, side=4):
    """Latents a + t b: a coefficient t per token along one direction b."""
    coefficients = torch.randn(count, side, side, generator=generator(1))
    direction = torch.randn(channels, generator=generator(2))
    return 5.0 + torch.einsum("mhw,c->mchw", coefficients, direction), coefficients


def test_rank_one_latents_give_colors_along_one_line():
    latents, coefficients = rank_one()
    colors = latent_colors(latents)
    assert colors.shape == (3, 3, 4, 4)
    assert colors.dtype == torch.uint8
    red, green, blue = colors.unbind(1)
    assert (green == 128).all()
    assert (blue == 128).all()
    # red rises (or falls) with the coefficient, token by token, and uses the whole range
    order = coefficients.flatten().argsort()
    steps = red.flatten()[order].int().diff()
    assert (steps >= 0).all() or (steps <= 0).all()
    assert (red.min(), red.max()) == (0, 255)


def test_components_agree_with_scikit_learn():
    latents = torch.randn(4, 5, 3, 3, generator=generator()) * torch.arange(1, 6).view(1, 5, 1, 1)
    tokens = latents.permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    expected = PCA(3).fit(tokens)
    scores, shares = principal_components(latents)
    assert shares.numpy() == pytest.approx(expected.explained_variance_ratio_, rel=1e-5)
    other = torch.from_numpy(expected.transform(tokens)).double()
    signs = (scores * other).sum(0).sign()
    torch.testing.assert_close(scores, other * signs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_the_sign_is_fixed_by_the_largest_loading(seed):
    latents = torch.randn(2, 5, 3, 3, generator=generator(seed), dtype=torch.float64)
    tokens = latents.permute(0, 2, 3, 1).reshape(-1, 5)
    tokens = tokens - tokens.mean(0)
    scores, _ = principal_components(latents)
    # an axis a is an eigenvector of T^T T, so T^T (T a) points along a
    axes = tokens.T @ scores
    assert (axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all()


def test_outliers_do_not_darken_the_rest():
    latents = torch.rand(1, 3, 32, 32, generator=generator())
    latents[0, :, 0, 0] = 1000.0
    red = latent_colors(latents)[0, 0].double()
    assert red.flatten()[1:].std() > 20


def test_constant_latents_are_gray_and_few_channels_leave_the_rest_gray():
    assert (latent_colors(torch.ones(2, 4, 3, 3)) == 128).all()
    two = latent_colors(torch.randn(2, 2, 3, 3, generator=generator()))
    assert (two[:, 2] == 128).all()
    assert two[:, :2].float().std() > 0


def test_latents_that_are_not_finite_have_colors():
    latents = torch.randn(1, 4, 4, 4, generator=generator())
    latents[0, 0, 0, 0], latents[0, 1, 1, 1] = float("nan"), float("inf")
    assert latent_colors(latents).shape == (1, 3, 4, 4)


def test_colors_do_not_depend_on_shift_or_scale():
    latents = torch.randn(2, 5, 4, 4, generator=generator(), dtype=torch.float64)
    difference = latent_colors(latents).int() - latent_colors(3.0 * latents + 7.0).int()
    assert difference.abs().max() <= 1

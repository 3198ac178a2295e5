"""LPC: decoders and distances for which it has a closed form."""

import pytest
import torch

from pae_evaluators.local_continuity import perceptual_change, radius_weights

RHOS = (0.1, 0.5, 1.0, 2.0)  # sum of 1 / rho: 10 + 2 + 1 + 0.5 = 13.5


def latents(count=3, channels=5, grid=2):
    return torch.randn(count, channels, grid, grid, generator=torch.Generator().manual_seed(0))


def euclidean(a, b):
    return (a - b).flatten(1).norm(dim=1)


def change(z, decode=lambda z: z, distance=euclidean, rhos=RHOS, directions=1, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return perceptual_change(z, decode, distance, rhos, directions, generator, **options)


def test_weights_are_proportional_to_the_inverse_radius():
    assert radius_weights(RHOS) == pytest.approx([10 / 13.5, 2 / 13.5, 1 / 13.5, 0.5 / 13.5])


def test_linear_decoder_and_euclidean_distance():
    # |3 rho move| = 3 rho |z|, and sum of weight * rho = 4 / 13.5.
    z = latents()
    expected = 3 * 4 / 13.5 * z.flatten(1).norm(dim=1)
    torch.testing.assert_close(change(z, decode=lambda z: 3 * z), expected.double())


def test_linear_decoder_and_squared_distance():
    # Sum of weight * rho^2 = (0.1 + 0.5 + 1 + 2) / 13.5.
    z = latents()
    expected = 3.6 / 13.5 * z.square().flatten(1).sum(1)
    found = change(z, distance=lambda a, b: euclidean(a, b).square(), directions=3)
    torch.testing.assert_close(found, expected.double())


def test_a_decoder_that_ignores_its_latent_does_not_change():
    assert change(latents(), decode=torch.zeros_like).tolist() == [0, 0, 0]


def test_both_signs_count_alike():
    # A signed distance is odd in the move, so that forth and back cancel.
    found = change(latents(), distance=lambda a, b: (a - b).flatten(1).sum(1))
    assert found.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_every_token_moves_by_rho_times_its_own_length():
    z = latents(channels=4, grid=3)
    seen = []

    def decode(moved):
        seen.append(moved)
        return moved

    change(z, decode=decode, rhos=(0.5,))
    clean, forth, back = seen
    assert torch.equal(clean, z)
    for moved in (forth, back):
        torch.testing.assert_close((moved - z).norm(dim=1), 0.5 * z.norm(dim=1))
    torch.testing.assert_close(forth - z, z - back)


def test_directions_are_uniform_on_the_sphere():
    z = torch.ones(200, 3, 4, 4)
    seen = []
    change(z, decode=lambda moved: seen.append(moved) or moved, rhos=(1.0,), batch_size=200)
    moves = ((seen[1] - z) / 3**0.5).permute(0, 2, 3, 1).reshape(-1, 3)  # 3200 unit vectors
    assert moves.mean(0).abs().max() < 0.05
    torch.testing.assert_close(moves.T @ moves / len(moves), torch.eye(3) / 3, atol=0.03, rtol=0)


def test_batches_change_nothing():
    z = latents(count=7)
    bent = {"decode": torch.tanh, "directions": 2}
    torch.testing.assert_close(change(z, batch_size=2, **bent), change(z, batch_size=7, **bent))


def test_the_seed_decides():
    z = latents()
    assert torch.equal(change(z, decode=torch.tanh), change(z, decode=torch.tanh))
    assert not torch.equal(change(z, decode=torch.tanh), change(z, decode=torch.tanh, seed=1))

"""Drawing latents: sample i is a function of (seed, i), labels are balanced."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pae_framework.config import GeneratorConfig, LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.sampling import draw, initial_noise, label_plan
from pae_framework.settings import Guidance, SampleSettings

LATENT = LatentShape(channels=4, side=3)
CLASSES = 5


class Small(Generator):
    """A small convolutional velocity with random weights."""

    def __init__(self):
        super().__init__(GeneratorConfig(), LATENT, CLASSES)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mix = nn.Conv2d(4, 4, 3, padding=1)
            self.table = nn.Embedding(CLASSES + 1, 4)

    def forward(self, x, t, y):
        return self.mix(x) + (self.table(y) * t[:, None])[:, :, None, None]


MODEL = Small()
COUNT = 7
PLAN = torch.arange(COUNT) % CLASSES


def drawn(labels=PLAN, indices=range(COUNT), seed=0, **changes):
    how = SampleSettings(**{"steps": 4, "guidance": Guidance(scale=2.0), **changes})
    return draw(MODEL, labels, indices, how, seed, LATENT)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batch_size_changes_no_sample(solver, batch_size):
    together = drawn(solver=solver, batch_size=COUNT)
    apart = drawn(solver=solver, batch_size=batch_size)
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-5)


def test_a_sample_alone_is_what_it_was_among_others():
    alone = drawn(PLAN[5:6], [5])
    torch.testing.assert_close(alone, drawn()[5:6], rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.integers(0, 3))
def test_noise_of_a_sample_is_the_same_in_any_company(indices, seed):
    together = initial_noise(indices, seed, LATENT)
    for row, index in enumerate(indices):
        assert torch.equal(together[row], initial_noise(torch.tensor([index]), seed, LATENT)[0])


def test_noise_is_standard_normal_and_its_own_for_each_sample_and_seed():
    latent = LatentShape(8, 16)
    noise = initial_noise(range(200), 0, latent).flatten(1)
    assert noise.mean().item() == pytest.approx(0, abs=4 / noise.numel() ** 0.5)
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    # Correlations of independent samples of n values deviate by 1 / sqrt(n).
    correlation = torch.corrcoef(noise).fill_diagonal_(0)
    assert correlation.abs().max().item() < 6 / noise.shape[1] ** 0.5
    assert not torch.equal(initial_noise([0], 0, latent), initial_noise([0], 1, latent))


def test_one_step_of_euler_is_noise_plus_the_velocity_at_noise():
    noise = initial_noise(range(COUNT), 3, LATENT)
    with torch.no_grad():
        velocity = MODEL(noise, torch.zeros(COUNT), PLAN)
    end = drawn(seed=3, steps=1, guidance=Guidance())
    torch.testing.assert_close(end, noise + velocity)


def test_no_gradient_is_kept_and_global_randomness_is_untouched():
    before = torch.get_rng_state()
    assert not drawn().requires_grad
    assert torch.equal(torch.get_rng_state(), before)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 5))
def test_labels_are_as_even_as_they_can_be(count, classes, seed):
    labels = label_plan(count, classes, seed)
    assert labels.shape == (count,)
    counts = Counter(labels.tolist())
    per_class = [counts[label] for label in range(classes)]
    assert sum(per_class) == count
    assert max(per_class) - min(per_class) <= 1


def test_label_plan_is_shuffled_by_its_seed():
    plan = label_plan(1000, 10, 0)
    assert torch.equal(plan, label_plan(1000, 10, 0))
    assert not torch.equal(plan, label_plan(1000, 10, 1))
    assert not torch.equal(plan, plan.sort().values)
    assert len(plan[:100].unique()) == 10

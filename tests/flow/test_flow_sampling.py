"""Drawing latents: sample i is a function of (seed, i), labels are balanced."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pae_framework.config import GeneratorConfig, LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.flow_settings import Guidance, SampleSettings
from pae_framework.flow.sampling import EvaluationCount, SampleNoise, label_plan, sample_latents

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


SOLVERS = ["euler", "heun", "ab2", "euler_maruyama", "sde_heun", "dopri5"]


def drawn(labels=PLAN, indices=range(COUNT), seed=0, **changes):
    how = SampleSettings(**{"steps": 4, "guidance": Guidance(scale=2.0), **changes})
    return sample_latents(MODEL, labels, indices, how, seed, LATENT)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_samples_do_not_depend_on_the_batch_size(solver, batch_size):
    together = drawn(solver=solver, batch_size=COUNT)
    apart = drawn(solver=solver, batch_size=batch_size)
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sample_does_not_depend_on_the_others(solver):
    alone = drawn(PLAN[5:6], [5], solver=solver)
    torch.testing.assert_close(alone, drawn(solver=solver)[5:6], rtol=1e-4, atol=1e-4)


class Recorded(Small):
    """Records the size of each call and the type in which it computes."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, t, y):
        velocity = super().forward(x, t, y)
        self.calls.append((len(x), self.mix(x).dtype))
        return velocity


def recorded(**changes):
    model, count = Recorded(), EvaluationCount()
    how = SampleSettings(steps=4, batch_size=3, **changes)
    samples = sample_latents(model, PLAN, range(COUNT), how, 0, LATENT, count=count)
    return samples, model.calls, count


@pytest.mark.parametrize("solver", ["euler", "sde_heun"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_compiled_batches_all_have_the_same_size(solver, scale):
    how = {"solver": solver, "guidance": Guidance(scale=scale)}
    plain, sizes, count = recorded(**how)
    filled, filled_sizes, filled_count = recorded(compile=True, **how)
    assert {size for size, _ in sizes} == {scale * 3, scale * 1}
    assert {size for size, _ in filled_sizes} == {scale * 3}
    assert len(filled) == COUNT
    torch.testing.assert_close(filled, plain, rtol=1e-4, atol=1e-4)
    assert filled_count == count


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_bf16_is_for_the_network_only(scale):
    exact, calls, _ = recorded(guidance=Guidance(scale=scale))
    rough, rough_calls, _ = recorded(precision="bf16", guidance=Guidance(scale=scale))
    assert {dtype for _, dtype in calls} == {torch.float32}
    assert {dtype for _, dtype in rough_calls} == {torch.bfloat16}
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert ((rough - exact).norm() / exact.norm()).item() < 0.02
    # Not even the sum of the start and all steps was rounded to bf16.
    assert not torch.equal(rough, rough.bfloat16().float())


@pytest.mark.parametrize("solver", ["euler_maruyama", "sde_heun"])
def test_stochastic_samples_are_reproducible_and_differ_by_seed(solver):
    assert torch.equal(drawn(solver=solver), drawn(solver=solver))
    assert not torch.equal(drawn(solver=solver), drawn(solver=solver, seed=1))


def test_each_step_of_each_sample_has_its_own_noise():
    latent = LatentShape(8, 16)
    noise = SampleNoise(range(12), 0, latent)
    draws = torch.cat([noise.draw() for _ in range(12)]).flatten(1)
    assert draws.mean().item() == pytest.approx(0, abs=4 / draws.numel() ** 0.5)
    assert draws.std().item() == pytest.approx(1, abs=0.01)
    correlation = torch.corrcoef(draws).fill_diagonal_(0)
    assert correlation.abs().max().item() < 6 / draws.shape[1] ** 0.5


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True), st.integers(0, 3))
def test_noise_of_a_step_does_not_depend_on_other_samples(indices, seed):
    together = SampleNoise(indices, seed, LATENT)
    alone = [SampleNoise([index], seed, LATENT) for index in indices]
    for _ in range(3):
        assert torch.equal(together.draw(), torch.cat([own.draw() for own in alone]))


def test_evaluations_are_summed_over_samples():
    """Times 0, 1/4, 1/2, 3/4: three of four lie in [0.25, 1]."""
    count = EvaluationCount()
    guidance = Guidance(scale=2.0, interval=(0.25, 1.0))
    how = SampleSettings(steps=4, guidance=guidance, batch_size=3)
    sample_latents(MODEL, PLAN, range(COUNT), how, 0, LATENT, count=count)
    assert (count.samples, count.total, count.guided) == (COUNT, 4 * COUNT, 3 * COUNT)
    assert count.mean == (4, 3)


def test_dopri5_counts_the_evaluations_of_each_sample():
    count = EvaluationCount()
    how = SampleSettings(solver="dopri5")
    sample_latents(MODEL, PLAN, range(COUNT), how, 0, LATENT, count=count)
    assert count.samples == COUNT
    assert count.mean[0] > 6  # one step of dopri5 has seven stages
    assert count.mean[1] == 0


def test_autoguidance_by_the_model_itself_is_no_guidance():
    guidance = Guidance(scale=3.0, autoguidance="another-run")
    how = SampleSettings(steps=4, guidance=guidance)
    end = sample_latents(MODEL, PLAN, range(COUNT), how, 0, LATENT, weak=MODEL)
    torch.testing.assert_close(end, drawn(guidance=Guidance()), rtol=0, atol=1e-5)


def test_zero_samples_give_an_empty_tensor():
    assert drawn(PLAN[:0], []).shape == (0, 4, 3, 3)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12), st.integers(0, 5))
def test_uniform_labels_are_independent(classes, seed):
    """The share of a class deviates by at most half / sqrt(count)."""
    labels = label_plan(4000, classes, seed, "uniform")
    assert labels.shape == (4000,)
    shares = torch.bincount(labels, minlength=classes) / 4000
    assert len(shares) == classes
    assert (shares - 1 / classes).abs().max().item() < 5 * 0.5 / 4000**0.5


def test_uniform_labels_are_not_balanced():
    counts = torch.bincount(label_plan(1000, 10, 0, "uniform"), minlength=10)
    assert counts.max() - counts.min() > 1


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.integers(0, 3))
def test_noise_of_a_sample_does_not_depend_on_other_samples(indices, seed):
    together = SampleNoise(indices, seed, LATENT).draw()
    for row, index in enumerate(indices):
        assert torch.equal(
            together[row], SampleNoise(torch.tensor([index]), seed, LATENT).draw()[0]
        )


def test_noise_is_standard_normal_and_differs_by_sample_and_seed():
    latent = LatentShape(8, 16)
    noise = SampleNoise(range(200), 0, latent).draw().flatten(1)
    assert noise.mean().item() == pytest.approx(0, abs=4 / noise.numel() ** 0.5)
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    # Correlations of independent samples of n values deviate by 1 / sqrt(n).
    correlation = torch.corrcoef(noise).fill_diagonal_(0)
    assert correlation.abs().max().item() < 6 / noise.shape[1] ** 0.5
    assert not torch.equal(SampleNoise([0], 0, latent).draw(), SampleNoise([0], 1, latent).draw())


def test_one_step_of_euler_is_noise_plus_the_velocity_at_noise():
    noise = SampleNoise(range(COUNT), 3, LATENT).draw()
    with torch.no_grad():
        velocity = MODEL(noise, torch.zeros(COUNT), PLAN)
    end = drawn(seed=3, steps=1, guidance=Guidance())
    torch.testing.assert_close(end, noise + velocity)


def test_sampling_stores_no_gradient_and_uses_no_global_randomness():
    before = torch.get_rng_state()
    assert not drawn().requires_grad
    assert torch.equal(torch.get_rng_state(), before)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 5))
def test_class_counts_differ_by_at_most_one(count, classes, seed):
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

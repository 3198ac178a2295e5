"""The flow-matching loss: the reference's figures, an exact model's zero, dropped labels."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pae_framework.config import GeneratorConfig, LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.flow_settings import FlowSettings, TimeSettings
from pae_framework.flow.matching import FlowObjective, drop_labels, flow_loss, velocity_terms
from pae_framework.flow.path import interpolate, path_velocity
from pae_framework.seeding import generator

GOLDEN = Path(__file__).parents[1] / "golden" / "lightningdit_tiny.safetensors"
LATENT = LatentShape(channels=4, side=3)
CLASSES = 10


class Exact(Generator):
    """Knows the one latent that all data are: its velocity is (x1 - x) / (1 - t)."""

    def __init__(self, data):
        super().__init__(GeneratorConfig(), LATENT, CLASSES)
        self.data = data
        self.seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def forward(self, x, t, y):
        self.seen.append((x, t, y))
        return (self.data - x) / (1 - t).view(-1, 1, 1, 1)


@pytest.fixture
def data():
    return torch.randn(1, 4, 3, 3, generator=generator(0, "data")).expand(64, -1, -1, -1)


def test_terms_equal_those_of_the_reference_code():
    golden = load_file(GOLDEN)
    mse, cosine = velocity_terms(golden["in.v"], golden["in.u"])
    torch.testing.assert_close(mse, golden["out.loss_mse"].squeeze(), rtol=0, atol=1e-5)
    torch.testing.assert_close(cosine, golden["out.loss_cos"].squeeze(), rtol=0, atol=1e-5)


def test_terms_by_hand():
    """Two channels, two places: v = (3, 4) and (1, 0) against u = (3, 4) and (0, 2).

    Squares: 0, 0, 1, 4, mean 1.25. Cosines: 1 and 0, so 1 - cos is 0 and 1, mean 0.5.
    """
    v = torch.tensor([[3.0, 1.0], [4.0, 0.0]]).view(1, 2, 1, 2)
    u = torch.tensor([[3.0, 0.0], [4.0, 2.0]]).view(1, 2, 1, 2)
    mse, cosine = velocity_terms(v, u)
    assert mse.item() == pytest.approx(1.25)
    assert cosine.item() == pytest.approx(0.5)


def test_path_runs_from_noise_at_0_to_data_at_1_at_constant_velocity():
    x0, x1 = torch.randn(2, 3, 4, 3, 3, generator=generator(0, "ends")).unbind()
    assert torch.equal(interpolate(x0, x1, torch.zeros(3)), x0)
    assert torch.equal(interpolate(x0, x1, torch.ones(3)), x1)
    early, late = (interpolate(x0, x1, torch.full((3,), t)) for t in (0.25, 0.75))
    torch.testing.assert_close((late - early) / 0.5, path_velocity(x0, x1))


def test_an_exact_model_has_zero_loss(data):
    """Not so if time ran backwards, the target were x0 - x1 or x_t were off the path."""
    labels = torch.zeros(64, dtype=torch.int64)
    terms = flow_loss(Exact(data[:1]), data, labels, FlowSettings(), generator(1, "step"))
    for value in terms.values():
        assert value.item() == pytest.approx(0, abs=1e-4)


def test_loss_is_the_sum_of_its_weighted_terms(data):
    class Zero(Exact):
        def forward(self, x, t, y):
            return torch.zeros_like(x)

    def loss(weight):
        labels = torch.zeros(64, dtype=torch.int64)
        settings = FlowSettings(cosine_weight=weight)
        return flow_loss(Zero(data[:1]), data, labels, settings, generator(1, "step"))

    one, half, none = loss(1.0), loss(0.5), loss(0.0)
    # The cosine with a zero vector is 0, so the term is 1.
    assert one["cosine"].item() == pytest.approx(1.0)
    assert half["cosine"].item() == pytest.approx(0.5)
    assert half["loss"].item() == pytest.approx(half["mse"].item() + 0.5)
    assert set(none) == {"mse", "loss"}
    assert none["loss"] == one["mse"]


def test_all_randomness_comes_from_the_generator(data):
    def seen(seed):
        model = Exact(data[:1])
        labels = torch.arange(64) % CLASSES
        flow_loss(model, data, labels, FlowSettings(), generator(seed, "step"))
        return model.seen[0]

    torch.manual_seed(0)
    first = seen(1)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, seen(1), strict=True))
    assert not torch.equal(first[0], seen(2)[0])


def test_the_objective_returns_flow_loss_of_its_model(data):
    model, settings = Exact(data[:1] + 1), FlowSettings(label_drop=0.5)
    labels = torch.arange(64) % CLASSES
    objective = FlowObjective(model, settings)

    terms = objective((data, labels), generator(1, "step"))

    assert terms == flow_loss(model, data, labels, settings, generator(1, "step"))
    assert objective.train().model.training
    assert not objective.eval().model.training


def test_noise_is_independent_per_latent_and_times_differ(data):
    model = Exact(data[:1])
    flow_loss(model, data, torch.zeros(64, dtype=torch.int64), FlowSettings(), generator(1, "s"))
    x, t, _ = model.seen[0]
    assert len(t.unique()) == 64
    noise = (x - t.view(-1, 1, 1, 1) * data) / (1 - t).view(-1, 1, 1, 1)
    assert noise.std().item() == pytest.approx(1, abs=0.1)


def test_times_noise_and_loss_are_float32_for_half_precision_latents(data):
    model, half = Exact(data[:1]), data.bfloat16()
    terms = flow_loss(
        model, half, torch.zeros(64, dtype=torch.int64), FlowSettings(), generator(1, "s")
    )
    x, t, _ = model.seen[0]
    assert (x.dtype, t.dtype) == (torch.float32, torch.float32)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    # Rounded to bfloat16, 64 times would not all stay as they are.
    assert not torch.equal(t, t.bfloat16().float())


def test_shift_base_uses_the_shape_of_the_models_latents(data):
    """Latents of 4 x 3 x 3 = 36 values: a base of 9 is a shift of sqrt(9 / 36) = 1/2."""

    def times(**time):
        model = Exact(data[:1])
        settings = FlowSettings(time=TimeSettings(**time))
        flow_loss(model, data, torch.zeros(64, dtype=torch.int64), settings, generator(1, "s"))
        return model.seen[0][1]

    assert torch.equal(times(shift_base=9), times(shift=0.5))


def test_labels_are_dropped_to_the_null_label_at_the_given_rate():
    n = 20_000
    labels = torch.arange(n) % CLASSES
    dropped = drop_labels(labels, CLASSES, 0.1, generator(0, "drop"))
    changed = dropped != labels
    assert (dropped[changed] == CLASSES).all()
    assert changed.float().mean().item() == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / n) ** 0.5)


@pytest.mark.parametrize(("share", "null"), [(0.0, False), (1.0, True)])
def test_label_drop_0_and_1(share, null):
    labels = torch.arange(100) % CLASSES
    dropped = drop_labels(labels, CLASSES, share, generator(0, "drop"))
    assert torch.equal(dropped, torch.full_like(labels, CLASSES) if null else labels)

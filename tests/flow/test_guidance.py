"""Guidance: the formulas by hand, where it is on, and what it costs."""

import pytest
import torch

from pae_framework.config import GeneratorConfig, LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.flow_settings import Guidance
from pae_framework.flow.guidance import guided

CLASSES = 10
LABELS = torch.tensor([2, 7])


class Labeled(Generator):
    """Velocity = label + channel / 10 everywhere, and a count of the rows it was asked for."""

    def __init__(self, factor=1):
        super().__init__(GeneratorConfig(), LatentShape(5, 2), CLASSES)
        self.factor = factor
        self.rows: list[int] = []
        self.times: list[torch.Tensor] = []

    def forward(self, x, t, y):
        self.rows.append(len(x))
        self.times.append(t)
        channels = torch.arange(x.shape[1]) / 10
        return self.factor * (y[:, None] + channels).view(len(x), -1, 1, 1).expand_as(x).float()


def velocity(t, **guidance):
    model = Labeled()
    field = guided(model, LABELS, Guidance(**guidance))
    return field(torch.zeros(2, 5, 2, 2), torch.tensor(t))[:, :, 0, 0], model


def expected(per_channel):
    return torch.tensor(per_channel)


CONDITIONAL = [[2.0, 2.1, 2.2, 2.3, 2.4], [7.0, 7.1, 7.2, 7.3, 7.4]]


def test_all_channels_by_hand():
    """u = 10, c = 2: 10 + 3 (2 - 10) = -14; c = 7: 10 + 3 (7 - 10) = 1; channel offsets stay."""
    v, _ = velocity(0.5, scale=3.0)
    rows = [[-14.0, -13.9, -13.8, -13.7, -13.6], [1.0, 1.1, 1.2, 1.3, 1.4]]
    torch.testing.assert_close(v, expected(rows))


def test_first_three_leaves_other_channels_conditional():
    v, _ = velocity(0.5, scale=3.0, channels="first_three")
    rows = [[-14.0, -13.9, -13.8, 2.3, 2.4], [1.0, 1.1, 1.2, 7.3, 7.4]]
    torch.testing.assert_close(v, expected(rows))


@pytest.mark.parametrize(
    ("t", "on"),
    [(0.0, False), (0.299, False), (0.3, True), (0.5, True), (0.7, True), (0.701, False)],
)
def test_interval_includes_both_ends(t, on):
    v, model = velocity(t, scale=3.0, interval=(0.3, 0.7))
    assert model.rows == ([4] if on else [2])
    if not on:
        torch.testing.assert_close(v, expected(CONDITIONAL))


def test_guidance_is_one_pass_of_twice_the_batch():
    _, model = velocity(0.5, scale=3.0)
    assert model.rows == [4]


def test_scale_1_computes_no_unconditional_velocity():
    v, model = velocity(0.5, scale=1.0)
    assert model.rows == [2]
    torch.testing.assert_close(v, expected(CONDITIONAL))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_every_row_gets_the_same_time(scale):
    _, model = velocity(0.25, scale=scale)
    assert torch.equal(model.times[0], torch.full((model.rows[0],), 0.25))


# --- autoguidance -------------------------------------------------------------------------------


def driven(t, factor=2, **guidance):
    """The field of a model of factor 1 driven away from one of another factor."""
    model, weak = Labeled(), Labeled(factor)
    field = guided(model, LABELS, Guidance(**guidance), weak)
    return field(torch.zeros(2, 5, 2, 2), torch.tensor(t))[:, :, 0, 0], model, weak


def test_autoguidance_by_hand():
    """Weak 4 + 0.2 k, main 2 + 0.1 k, scale 3: 4 + 3 (2 - 4) = -2, and 0.2 - 0.3 = -0.1 more."""
    v, _, _ = driven(0.5, scale=3.0)
    rows = [[-2.0, -2.1, -2.2, -2.3, -2.4], [-7.0, -7.1, -7.2, -7.3, -7.4]]
    torch.testing.assert_close(v, expected(rows))


def test_autoguidance_of_the_first_three_channels():
    v, _, _ = driven(0.5, scale=3.0, channels="first_three")
    rows = [[-2.0, -2.1, -2.2, 2.3, 2.4], [-7.0, -7.1, -7.2, 7.3, 7.4]]
    torch.testing.assert_close(v, expected(rows))


def test_autoguidance_by_an_equal_network_changes_nothing():
    v, _, _ = driven(0.5, factor=1, scale=3.0)
    torch.testing.assert_close(v, expected(CONDITIONAL))


@pytest.mark.parametrize(("t", "on"), [(0.29, False), (0.3, True), (0.7, True), (0.71, False)])
def test_the_weak_network_is_called_only_inside_the_interval(t, on):
    v, model, weak = driven(t, scale=3.0, interval=(0.3, 0.7))
    assert model.rows == [2]
    assert weak.rows == ([2] if on else [])
    if not on:
        torch.testing.assert_close(v, expected(CONDITIONAL))


def test_scale_1_does_not_call_the_weak_network():
    _, model, weak = driven(0.5, scale=1.0)
    assert (model.rows, weak.rows) == ([2], [])


# --- counting ------------------------------------------------------------------------------------


def test_the_field_counts_evaluations_and_guided_ones():
    model = Labeled()
    field = guided(model, LABELS, Guidance(scale=3.0, interval=(0.3, 0.7)))
    for t in (0.1, 0.3, 0.5, 0.9):
        field(torch.zeros(2, 5, 2, 2), torch.tensor(t))
    assert (field.evaluations, field.guided_evaluations) == (4, 2)
    assert sum(model.rows) == 2 * (4 + 2)


def test_velocities_of_bfloat16_are_guided_in_float32():
    """c = 129 / 128, g = 1: 1 + 3.25 / 128 = 1.025390625, which bfloat16 rounds to 1.0234375."""

    class Half(Labeled):
        def forward(self, x, t, y):
            values = torch.where(y == self.num_classes, 1.0, 129 / 128)
            return values.bfloat16().view(-1, 1, 1, 1)

    field = guided(Half(), LABELS, Guidance(scale=3.25))
    assert field(torch.zeros(2, 1, 1, 1), torch.tensor(0.5)).unique().tolist() == [1.025390625]


def test_the_velocity_has_the_type_of_x_not_of_the_network():
    class Half(Labeled):
        def forward(self, x, t, y):
            return super().forward(x, t, y).bfloat16()

    field = guided(Half(), LABELS, Guidance(scale=3.0))
    assert field(torch.zeros(2, 5, 2, 2), torch.tensor(0.5)).dtype == torch.float32

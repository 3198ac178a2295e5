"""Classifier-free guidance: the formula by hand, where it is on, and what it costs."""

import pytest
import torch

from pae_framework.config import GeneratorConfig, LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.guidance import guided
from pae_framework.settings import Guidance

CLASSES = 10
LABELS = torch.tensor([2, 7])


class Labelled(Generator):
    """Velocity = label + channel / 10 everywhere, and a count of the rows it was asked for."""

    def __init__(self):
        super().__init__(GeneratorConfig(), LatentShape(5, 2), CLASSES)
        self.rows: list[int] = []
        self.times: list[torch.Tensor] = []

    def forward(self, x, t, y):
        self.rows.append(len(x))
        self.times.append(t)
        channels = torch.arange(x.shape[1]) / 10
        return (y[:, None] + channels).view(len(x), -1, 1, 1).expand_as(x).float()


def velocity(t, **guidance):
    model = Labelled()
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


def test_first_three_channels_leave_the_others_conditional():
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


def test_scale_one_computes_no_unconditional_half():
    v, model = velocity(0.5, scale=1.0)
    assert model.rows == [2]
    torch.testing.assert_close(v, expected(CONDITIONAL))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_every_row_is_asked_at_the_same_time(scale):
    _, model = velocity(0.25, scale=scale)
    assert torch.equal(model.times[0], torch.full((model.rows[0],), 0.25))

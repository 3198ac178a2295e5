"""The meter: what it averages, and that it shows every step to who looks."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from pae_framework.training.meter import Meter


def metered(*steps: Mapping[str, float]) -> tuple[Meter, list[tuple[int, dict[str, float]]]]:
    seen: list[tuple[int, dict[str, float]]] = []
    meter = Meter(images_per_step=6, look=lambda step, terms: seen.append((step, dict(terms))))
    for terms in steps:
        meter.add({name: torch.tensor(value) for name, value in terms.items()})
    return meter, seen


EARLY, LATE = {"loss": 1.0, "ends": 3.0}, {"loss": 2.0, "starts": 5.0}


def test_a_term_is_averaged_over_the_steps_that_had_it():
    meter, _ = metered(EARLY, LATE, LATE | {"starts": 7.0})
    values = meter.read(3)
    assert (values["ends"], values["starts"]) == (3.0, 6.0)
    assert values["loss"] == pytest.approx(5 / 3)


def test_every_step_is_looked_at_once_with_its_own_terms():
    meter, seen = metered(EARLY, LATE)
    meter.read(12)
    assert seen == [(11, EARLY), (12, LATE)]
    meter.add({"loss": torch.tensor(4.0)})
    assert meter.read(13)["loss"] == 4.0
    assert [step for step, _ in seen] == [11, 12, 13]

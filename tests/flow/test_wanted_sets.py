"""The sample sets that settings ask for, and settings that ask for what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pae_framework.flow.flow_settings import Guidance, SampleSettings
from pae_framework.training.train_settings import TrainSettings

Wanted = list[tuple[str, int | None, str, int, int]]


def wanted(last: int | None = 9, **settings: Any) -> Wanted:
    given = SampleSettings.model_validate({"count": 100, "steps": 50, **settings})
    return [
        (role, step, own.solver, own.steps, own.count)
        for role, step, own, _ in given.sets(last=last)
    ]


MAIN = ("main", 9, "euler", 50, 100)


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, []),
        ({"at_steps": [3, 9]}, [("checkpoint", 3, "euler", 50, 100)]),
        ({"few_steps": [5, 50]}, [("few_steps", 9, "euler", 5, 100)]),
        (
            {"at_steps": [3, 9], "convergence": {"count": 20, "steps": 10, "solver": "heun"}},
            [("convergence", 3, "heun", 10, 20), ("convergence", 9, "heun", 10, 20)],
        ),
        ({"convergence": {}}, [("convergence", 9, "euler", 50, 1000)]),
        (
            {"at_steps": [3], "few_steps": [5], "variants": {"a": {"shift": 2}, "b": {"steps": 7}}},
            [
                ("checkpoint", 3, "euler", 50, 100),
                ("variant", 9, "euler", 50, 100),
                ("variant", 9, "euler", 7, 100),
                ("few_steps", 9, "euler", 5, 100),
            ],
        ),
        (
            {"few_steps": [5, 50], "few_steps_solvers": ["ab2", "euler"]},
            [
                ("few_steps", 9, "ab2", 5, 100),
                ("few_steps", 9, "ab2", 50, 100),
                ("few_steps", 9, "euler", 5, 100),
            ],
        ),
    ],
)
def test_sets(settings: dict[str, Any], more: Wanted) -> None:
    assert wanted(**settings) == [MAIN, *more]


def test_sets_if_the_last_step_is_unknown() -> None:
    found = wanted(last=None, at_steps=[3], convergence={"count": 20})
    assert [(role, step) for role, step, *_ in found] == [
        ("main", None),
        ("convergence", 3),
        ("convergence", None),
    ]


def test_the_protocol_for_convergence_takes_over_nothing_that_it_has_itself() -> None:
    settings = SampleSettings.model_validate(
        {
            **{"steps": 250, "seed": 3, "shift": 0.3, "guidance": {"scale": 4}},
            **{"precision": "bf16", "labels": "uniform", "batch_size": 7, "convergence": {}},
        }
    )
    _, (_, _, own, _) = settings.sets(last=9)
    assert (own.steps, own.seed, own.shift, own.guidance.scale) == (50, 0, 1.0, 1.0)
    assert (own.precision, own.labels, own.batch_size) == ("bf16", "uniform", 7)


def test_a_variant_keeps_what_it_does_not_change() -> None:
    settings = SampleSettings.model_validate(
        {
            **{"steps": 249, "seed": 3, "shift": 0.3, "precision": "bf16", "labels": "uniform"},
            "guidance": {"scale": 4, "channels": "first_three", "interval": [0.2, 1]},
            "variants": {
                "unguided": {"solver": "euler_maruyama", "steps": 250, "guidance": {"scale": 1}},
                "unshifted": {"shift": 1},
            },
        }
    )
    main, unguided, unshifted = settings.sets(last=9)
    assert [each.variant for each in (main, unguided, unshifted)] == [None, "unguided", "unshifted"]
    changed = {"solver": "euler_maruyama", "steps": 250, "guidance": Guidance()}
    assert unguided.settings == main.settings.model_copy(update=changed)
    assert unshifted.settings == main.settings.model_copy(update={"shift": 1.0})


def test_the_shift_of_a_variant_replaces_one_that_depends_on_the_latents() -> None:
    settings = SampleSettings.model_validate(
        {"shift_base": 4096, "variants": {"fixed": {"shift": 0.5}, "fewer": {"steps": 9}}}
    )
    _, fixed, fewer = (each.settings for each in settings.sets(last=9))
    assert (fixed.shift, fixed.shift_base) == (0.5, None)
    assert (fewer.shift, fewer.shift_base) == (1.0, 4096)


def test_settings_survive_that_all_their_values_are_written() -> None:
    """As in ``resolved.yaml``."""
    settings = SampleSettings.model_validate({"variants": {"unshifted": {"shift": 2}}})
    assert SampleSettings.model_validate(settings.model_dump(mode="json")) == settings


KEYS = ["at_steps", "few_steps", "few_steps_solvers", "convergence", "variants"]


@pytest.mark.parametrize("key", KEYS)
def test_each_set_alone_asks_for_no_other(key: str) -> None:
    settings = SampleSettings.model_validate(
        {
            **{"at_steps": [3], "few_steps": [5], "few_steps_solvers": ["heun"]},
            **{"convergence": {}, "variants": {"a": {"shift": 2}}},
        }
    )
    for _, _, own, _ in settings.sets(last=9):
        assert getattr(own, key) == SampleSettings.model_fields[key].default


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"few_steps_solvers": ["heun"]}, "few_steps"),
        ({"few_steps": [5], "few_steps_solvers": ["dopri5"]}, "few_steps_solvers"),
        ({"few_steps": [5], "few_steps_solvers": ["heun", "heun"]}, "heun"),
        ({"few_steps": [5, 1], "few_steps_solvers": ["euler", "sde_heun"]}, "sde_heun"),
        ({"convergence": {"count": 1}}, "convergence.count"),
        ({"convergence": {"solver": "euler_maruyama", "steps": 1}}, "euler_maruyama"),
        ({"convergence": {"guidance": {"scale": 2, "autoguidance": "runs/a"}}}, "autoguidance"),
        ({"convergence": {"shift": 2, "shift_base": 4096}}, "shift_base"),
        ({"convergence": {"batch_size": 4}}, "convergence.batch_size"),
        ({"variants": {"a": {}}}, "variants.a"),
        ({"variants": {"a": {"guidance": None}}}, "variants.a"),
        ({"steps": 9, "variants": {"a": {"steps": 9}}}, "variants.a"),
        ({"variants": {"a": {"steps": 9}, "b": {"steps": 9}}}, "variants.b"),
        ({"variants": {"a": {"steps": 0}}}, "variants.a.steps"),
        ({"variants": {"a": {"solver": "sde_heun", "steps": 1}}}, "variants.a"),
        ({"steps": 1, "variants": {"a": {"solver": "sde_heun"}}}, "variants.a"),
        ({"variants": {"a": {"count": 9}}}, "variants.a.count"),
        ({"variants": {"a": {"guidance": {"scale": 0}}}}, "variants.a.guidance.scale"),
        ({"variants": {"a": {"guidance": {"scale": 2, "autoguidance": "r"}}}}, "autoguidance"),
        ({"variants": ["a"]}, "variants"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SampleSettings.model_validate(settings)
    error = caught.value.errors()[0]
    assert named in ".".join(map(str, error["loc"])) + " " + error["msg"]


def test_one_step_is_enough_for_solvers_without_a_last_step() -> None:
    SampleSettings.model_validate(
        {
            **{"few_steps": [1], "few_steps_solvers": ["sde_heun", "heun"]},
            "sde": {"last_step": "none"},
        }
    )


def test_a_stochastic_main_solver_leaves_one_step_to_others() -> None:
    settings = {"solver": "sde_heun", "few_steps": [1], "few_steps_solvers": ["euler"]}
    assert [x[2:4] for x in wanted(**settings)] == [("sde_heun", 50), ("euler", 1)]


def test_epochs_of_a_step() -> None:
    train = TrainSettings(steps=100, batch_size=32)
    assert train.epochs_at(30, images=640) == 1.5
    assert train.epochs_at(0, images=640) == 0

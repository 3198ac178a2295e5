"""How many steps runs need: worked out by hand, interpolated, never extrapolated."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report_page import Page

from pae_framework.report.convergence import (
    Convergence,
    Reached,
    TrainedRun,
    convergences,
    reached,
)
from pae_framework.report.convergence_page import render_convergence
from pae_framework.report.convergence_table import (
    curve_rows,
    notes,
    plain,
    reach_rows,
    speedup_rows,
)

Metrics = list[dict[str, Any]]


def metrics(points: dict[int, float | None], **facts: Any) -> Metrics:
    """A gFD at some steps; ``facts``: fields of the metrics."""
    return [
        {
            **{"name": "generation/fd_x", "label": "gFD", "value": value},
            **{"higher_is_better": False, "protocol": {"count": 1000, "generator_step": step}},
            **facts,
            "at": {"generator_step": step, **facts.get("at", {})},
        }
        for step, value in points.items()
    ]


FAST = TrainedRun("fast", metrics({100: 8.0, 200: 4.0, 400: 2.0}), batch_size=64, images=640)
SLOW = TrainedRun("slow", metrics({100: 10.0, 400: 6.0, 800: 3.0}), batch_size=64, images=640)


def compared(*runs: TrainedRun) -> Convergence:
    (found,) = convergences(runs)
    return found


# --- where a curve reaches a value ----------------------------------------------------------------

FALLING = ((100, 8.0), (200, 4.0), (400, 2.0))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (9.0, Reached(100, exact=False)),  # better from the start: there or before
        (8.0, Reached(100, exact=False)),
        (6.0, Reached(150, exact=True)),
        (4.0, Reached(200, exact=True)),
        (3.5, Reached(250, exact=True)),
        (2.0, Reached(400, exact=True)),
        (1.999, None),
    ],
)
def test_a_falling_curve(target: float, expected: Reached | None) -> None:
    assert reached(FALLING, target, higher_is_better=False) == expected


@pytest.mark.parametrize(("target", "step"), [(0.25, 150), (0.5, 300), (0.6, None)])
def test_a_rising_curve(target: float, step: int | None) -> None:
    found = reached(((100, 0.2), (200, 0.3), (300, 0.5)), target, higher_is_better=True)
    assert found == (None if step is None else Reached(step, exact=True))


def test_the_first_of_several_crossings_counts() -> None:
    assert reached(((1, 8), (2, 4), (3, 7), (4, 2)), 5, higher_is_better=False) == Reached(
        1.75, exact=True
    )


values = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3))


@given(st.lists(values, min_size=1, max_size=8), values, st.booleans())
def test_a_curve_reaches_a_value_between_the_steps_around_it(
    curve: list[float], target: float, higher: bool
) -> None:
    points = tuple((10 * index, value) for index, value in enumerate(curve, start=1))
    good = [step for step, value in points if (value >= target if higher else value <= target)]
    found = reached(points, target, higher)
    assert (found is None) == (not good)
    if found is not None:
        assert good[0] - 10 <= found.step <= good[0]
        assert found.exact == (good[0] > 10)
    mirrored = tuple((step, -value) for step, value in points)
    assert reached(mirrored, -target, not higher) == found


@given(st.lists(values, min_size=2, max_size=8, unique=True), values, values)
def test_a_worse_value_is_reached_no_later(curve: list[float], one: float, two: float) -> None:
    points = tuple((10 * index, value) for index, value in enumerate(curve, start=1))
    steps = [reached(points, target, higher_is_better=False) for target in sorted((one, two))]
    for better, worse in pairwise(steps):
        assert better is None or (worse is not None and worse.step <= better.step)


# --- one run against another ----------------------------------------------------------------------


def test_times_fewer_steps() -> None:
    """The last of slow, 3 at step 800: fast is half-way from 4 at 200 to 2 at 400."""
    pair, back = compared(FAST, SLOW).speedups()
    assert (pair.run.run.label, pair.other.run.label) == ("fast", "slow")
    assert pair.needed == Reached(300, exact=True)
    assert pair.factor == pytest.approx(800 / 300)
    assert (pair.factor_in_images, pair.bound) == (pair.factor, "")
    assert (back.needed, back.factor) == (None, None)


def test_what_is_not_reached_is_not_extrapolated() -> None:
    rows = speedup_rows(compared(FAST, SLOW))
    assert rows[0] == ("fast", "slow", "3.00", "300", "800", "2.67 x")
    assert rows[1] == ("slow", "fast", "2.00", "not reached within 800", "400", "")


def test_larger_batches_need_fewer_steps_but_not_fewer_images() -> None:
    large = TrainedRun("large", FAST.metrics, batch_size=256, images=640)
    found = compared(large, SLOW)
    pair = found.speedups()[0]
    assert pair.factor_in_images == pytest.approx(800 * 64 / (300 * 256))
    assert any("batch" in note for note in notes(found))
    assert not any("batch" in note for note in notes(compared(FAST, SLOW)))


def test_a_run_that_got_worse_counts_from_where_it_first_was_as_good() -> None:
    """It had 3 at the middle between 4 at 100 and 2 at 200, long before its last step."""
    worse = TrainedRun("worse", metrics({100: 4.0, 200: 2.0, 900: 3.0}))
    pair = next(pair for pair in compared(FAST, worse).speedups() if pair.run.run is FAST)
    assert pair.other_needed == Reached(150, exact=True)
    assert pair.factor == pytest.approx(150 / 300)


@pytest.mark.parametrize(
    ("points", "bound", "factor"),
    [
        ({800: 3.0}, "<=", 800 / 300),  # it may have had it before its only measured step
        ({800: 9.0}, "", None),  # so may both
    ],
)
def test_a_run_with_one_measured_step(
    points: dict[int, float], bound: str, factor: float | None
) -> None:
    once = TrainedRun("once", metrics(points))
    pair = next(pair for pair in compared(FAST, once).speedups() if pair.run.run is FAST)
    assert pair.bound == bound
    assert pair.factor == (None if factor is None else pytest.approx(factor))


def test_a_run_that_is_as_good_from_the_start_needs_at_most_its_first_step() -> None:
    best = TrainedRun("best", metrics({100: 2.0, 200: 1.0}))
    pair = next(pair for pair in compared(best, SLOW).speedups() if pair.run.run is best)
    assert (pair.factor, pair.bound) == (8, ">=")


def test_epochs_to_a_value() -> None:
    """Ten steps of 64 images are an epoch of 640: 250 steps are 25 epochs."""
    found = compared(FAST, SLOW)
    assert reach_rows(found, [3.5, 2.5, 8.0]) == [
        ("fast", "3.5", "250", "25", "16000"),
        ("slow", "3.5", "733.3", "73.33", "46933"),
        ("fast", "2.5", "350", "35", "22400"),
        ("slow", "2.5", "not reached within 800", "", ""),
        ("fast", "8", "<= 100", "<= 10", "<= 6400"),
        ("slow", "8", "250", "25", "16000"),
    ]
    assert curve_rows(found)[0] == ("fast", "100, 200, 400", "40", "2.00")


def test_without_a_training_there_are_no_epochs() -> None:
    unknown = TrainedRun("unknown", FAST.metrics)
    assert reach_rows(compared(unknown), [3.5]) == [("unknown", "3.5", "250", "", "")]


# --- which curves there are -----------------------------------------------------------------------


def test_a_chart_needs_two_steps_of_one_run() -> None:
    once = TrainedRun("once", metrics({400: 3.0}))
    assert convergences([once]) == []
    assert [curve.run.label for curve in compared(FAST, once).curves] == ["fast", "once"]


def test_metrics_under_other_conditions_are_charts_of_their_own() -> None:
    small = metrics({100: 9.0, 200: 5.0}, at={"protocol": "convergence"})
    both = TrainedRun("both", [*metrics({100: 8.0, 200: 4.0}), *small])
    found = convergences([both, FAST])
    assert [one.condition for one in found] == ["", "protocol convergence"]
    assert [[c.run.label for c in one.curves] for one in found] == [["both", "fast"], ["both"]]
    assert any("fast" in note for note in notes(found[1]))


def test_values_that_are_missing_and_loaded_generators_are_left_out() -> None:
    points = {0: 1.0, 100: 8.0, 150: None, 175: float("nan"), 200: 4.0}
    (curve,) = compared(TrainedRun("a", metrics(points))).curves
    assert curve.points == ((100, 8.0), (200, 4.0))


def protocol(**values: Any) -> dict[str, Any]:
    return {"count": 1000, "steps": 10, **values}


def test_runs_with_other_protocols_are_marked_and_not_compared() -> None:
    other = TrainedRun("other", metrics({100: 7.0, 200: 3.0}, protocol=protocol(count=500)))
    one = TrainedRun("one", metrics({100: 7.0, 200: 3.0}, protocol=protocol()))
    found = compared(one, other)
    assert found.speedups() == []
    assert [found.mark(curve) for curve in found.curves] == [
        "one (protocol 1)",
        "other (protocol 2)",
    ]
    (note,) = notes(found)
    assert "protocol 2" in note
    assert "count: 500, not 1000" in note
    assert plain(found, [])["differences"] == {"2": {"count": ["1000", "500"]}}


@pytest.mark.parametrize(
    "of_the_weights",
    [
        *({"generator_step": 5}, {"images_seen": 5}, {"epochs": 0.5}, {"weights": "ema"}),
        *({"generator_seed": 7}, {"tokenizer_seed": 7}, {"role": "main"}),
        *({"stages": {"generator": "abc"}}, {"evaluations": 9.5}),
    ],
    ids=str,
)
def test_what_was_measured_is_no_difference_of_protocols(of_the_weights: dict[str, Any]) -> None:
    found = compared(
        TrainedRun("a", metrics({100: 7.0, 200: 3.0}, protocol=protocol(**of_the_weights))),
        TrainedRun("b", metrics({100: 7.0, 200: 3.0}, protocol=protocol())),
    )
    assert len(found.protocols) == 1
    assert notes(found) == []


def test_curves_of_other_seeds_are_compared_and_the_seeds_are_told() -> None:
    one = TrainedRun("a", metrics({100: 7.0, 200: 3.0}, protocol=protocol(sample_seed=3)))
    other = TrainedRun("b", metrics({100: 7.0, 200: 3.0}, protocol=protocol(sample_seed=5)))
    found = compared(one, other)
    assert (len(found.protocols), len(found.speedups())) == (1, 2)
    (note,) = notes(found)
    assert all(fact in note for fact in ("sample_seed", "3 (a)", "5 (b)"))
    assert notes(compared(one, TrainedRun("c", one.metrics))) == []


def test_curves_against_other_test_images_are_not_compared() -> None:
    runs = [
        TrainedRun(str(s), metrics({100: 7.0, 200: 3.0}, protocol=protocol(test_images_seed=s)))
        for s in (0, 1)
    ]
    found = compared(*runs)
    assert (len(found.protocols), found.speedups()) == (2, [])


@pytest.mark.parametrize(
    "difference",
    [
        *({"solver": "heun"}, {"guidance": 2.0}, {"shift": 0.5}, {"extractor_digest": "a"}),
        *({"guidance_interval": [0.1, 1]}, {"reference_count": 5}, {"steps": 11}),
        *({"extractor": "y"}, {"stages": {"extractor": "trained on its own"}}),
    ],
    ids=str,
)
def test_how_it_was_measured_is_a_difference(difference: dict[str, Any]) -> None:
    found = compared(
        TrainedRun("a", metrics({100: 7.0, 200: 3.0}, protocol=protocol(**difference))),
        TrainedRun("b", metrics({100: 7.0, 200: 3.0}, protocol=protocol())),
    )
    assert (len(found.protocols), found.speedups()) == (2, [])


def test_extractors_of_their_own_are_told_in_words() -> None:
    runs = [
        TrainedRun(
            run,
            metrics(
                {100: 7.0, 200: 3.0}, protocol=protocol(extractor_digest=digest, extractor_seed=0)
            ),
        )
        for run, digest in (("a", "5d1a"), ("b", "77c0"))
    ]
    (note,) = notes(compared(*runs))
    assert "each run trained its own extractor" in note
    assert "5d1a" not in note


def test_runs_that_state_no_protocol_are_not_compared() -> None:
    found = compared(*(TrainedRun(x, metrics({100: 7.0, 200: 3.0}, protocol={})) for x in "ab"))
    assert (len(found.curves), found.speedups()) == (2, [])
    assert len(notes(found)) == 1


# --- the page -------------------------------------------------------------------------------------


def test_the_page_has_charts_tables_protocols_and_marks() -> None:
    odd = TrainedRun("<odd>", metrics({100: 7.0, 200: 3.0}, protocol=protocol(count=500)))
    page = Page(render_convergence([compared(FAST, SLOW, odd)], [3.5], "pae report a b"))
    for text in ("2.67 x", "not reached within 800", "<odd> (protocol 2)", "linear", "pae report"):
        assert text in page.text
    (image,) = page.values("src")
    assert image.startswith("data:image/svg+xml;base64,")
    assert page.tags.count("details") == 2

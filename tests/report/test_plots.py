"""Curves: what they smooth, when they are logarithmic, and that they are sound SVG."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from pae_framework.report.plots import (
    GRAY,
    PALETTE,
    Line,
    colors_of,
    curves,
    loss_panels,
    smooth,
    spans_decades,
)


def texts(svg):
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("}text")]


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_smoothing_by_hand():
    values = np.array([1.0, 5.0, 3.0, 4.0, 8.0])
    assert smooth(values, half=1).tolist() == [1.0, 3.0, 4.0, 5.0, 8.0]
    # the window of two narrows to one and to none towards the ends
    assert smooth(values, half=2).tolist() == [1.0, 3.0, 4.2, 5.0, 8.0]
    assert smooth(values, half=0).tolist() == values.tolist()


def test_smoothing_does_not_bend_a_straight_line():
    line = np.linspace(3.0, -1.0, 40)
    assert smooth(line, half=7) == pytest.approx(line)


def test_smoothing_ignores_values_that_are_not_finite():
    found = smooth(np.array([np.nan, 2.0, np.inf, 4.0, 6.0]), half=1)
    assert math.isnan(found[0])
    assert found[1:].tolist() == [2.0, 3.0, 5.0, 6.0]


def test_an_axis_is_logarithmic_for_positive_values_over_a_factor_of_ten():
    assert spans_decades(np.array([0.1, 1.0, np.nan]))
    assert not spans_decades(np.array([0.2, 1.0]))
    assert not spans_decades(np.array([0.0, 1.0]))
    assert not spans_decades(np.array([-1.0, 100.0]))
    assert not spans_decades(np.array([np.nan]))


def test_every_term_of_a_log_with_three_values_has_its_panel():
    rows = [{"step": i, "loss": 1 / (i + 1), "lr": 1e-3} for i in range(50)]
    for row in rows[10:13]:
        row["late"] = 3.0
    rows[10]["twice"] = rows[11]["twice"] = 3.0
    rows[20]["never"] = None
    panels = loss_panels(rows)
    assert list(panels) == ["loss", "lr", "late"]
    for svg in panels.values():
        assert ElementTree.fromstring(svg).tag.endswith("}svg")


def test_the_axes_of_a_panel_have_titles():
    panels = loss_panels([{"step": i, "kl": 1.0 + i, "lr": 0.1 + i} for i in range(5)])
    assert {"step", "kl"} <= set(texts(panels["kl"]))
    assert {"step", "learning rate"} <= set(texts(panels["lr"]))


def test_names_get_colors_in_the_order_of_their_first_appearance():
    found = colors_of(["b", "a", "b", "c"])
    assert found == {"b": PALETTE[0], "a": PALETTE[1], "c": PALETTE[2]}
    many = colors_of(map(str, range(len(PALETTE) + 1)))
    assert many[str(len(PALETTE))] == PALETTE[0]


def test_lines_and_panels_have_the_colors_they_are_given():
    rows = [{"step": i, "kl": 1.0 + i} for i in range(5)]
    assert "#0c98aa" in loss_panels(rows, {"kl": "#0c98aa"})["kl"]
    line = Line("a", [(i, 1.0 + i, None) for i in range(3)])
    assert "#0c98aa" in curves([line], "x", "y", colors={"a": "#0c98aa"})


def test_a_long_log_stays_a_small_picture():
    short = loss_panels([{"step": i, "loss": 1.0 + i % 7} for i in range(300)])["loss"]
    long = loss_panels([{"step": i, "loss": 1.0 + i % 7} for i in range(30_000)])["loss"]
    assert len(long) < 1.2 * len(short)


def test_one_step_and_no_step():
    assert loss_panels([{"step": 1, "loss": 2.0}]) == {}
    assert loss_panels([]) == {}


def test_the_chart_names_its_lines_and_marks_what_was_measured():
    hostile = ["_hidden", "$\\frac{$", "<b>&", "plain"]
    lines = [Line(name, [(5, 2.0 + i, 0.1), (50, 1.0 + i, None)]) for i, name in enumerate(hostile)]
    found = texts(curves(lines, "network evaluations", "$g$FD", log_x=True))
    assert {*hostile, "5", "50", "network evaluations", "$g$FD"} <= set(found)


def test_chart_with_a_value_that_is_not_finite():
    svg = curves([Line("a", [(1, float("nan"), None), (2, 1.0, None)])], "x", "y")
    assert ElementTree.fromstring(svg) is not None
    assert curves([Line("a", [])], "x", "y")


def test_the_same_input_gives_the_same_bytes_without_date_or_link():
    lines = [Line("a", [(1, 2.0, None), (2, 1.0, None)])]
    assert curves(lines, "x", "y") == curves(lines, "x", "y")
    assert "matplotlib.org" not in curves(lines, "x", "y")
    assert "metadata" not in curves(lines, "x", "y")


@pytest.mark.parametrize("page", ["#fbfbfa", "#121417"])
def test_text_and_lines_stand_out_on_a_light_and_on_a_dark_page(page):
    assert contrast(GRAY, page) > 4
    for color in PALETTE:
        assert contrast(color, page) > 3


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6])
def test_labels_of_an_axis_differ_however_close_its_ticks_are(spread):
    points = [(10.0 * i, 1.893 + spread * i / 2, None) for i in range(3)]
    labels = [text for text in texts(curves([Line("run", points)], "x", "gFD")) if "." in text]
    assert len(labels) > 3
    assert len(labels) == len(set(labels))

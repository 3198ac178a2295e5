"""Differences of a sweep's variants to one of them, by hand."""

from __future__ import annotations

import pytest

from pae_framework.report.deltas import Delta, delta_table
from pae_framework.report.table import MemberMetrics

PROTOCOL = {"count": 24}


def member(variant, seed, value, protocol=PROTOCOL):
    psnr = {
        "name": "reconstruction/psnr",
        "label": "PSNR",
        "value": value,
        "higher_is_better": True,
        "std": None,
        "at": {},
        "protocol": protocol,
    }
    return MemberMetrics(variant, seed, [psnr])


def cells(members, base="base"):
    others, rows = delta_table(members, base)
    return {other: [row.cells[i] for row in rows] for i, other in enumerate(others)}


def test_each_variant_is_compared_with_the_base_of_the_same_seed():
    found = cells(
        [
            *(member("up", 0, 22.0), member("up", 1, 31.0)),  # + 2, + 1
            *(member("base", 1, 30.0), member("base", 0, 20.0)),
            *(member("mixed", 0, 19.0), member("mixed", 1, 32.0)),  # - 1, + 2
            *(member("same", 0, 20.0), member("same", 1, 30.0)),
        ]
    )
    assert found == {
        "up": [Delta("+1.50 ± 0.50", consistent=True)],
        "mixed": [Delta("+0.50 ± 1.50")],
        "same": [Delta("+0.00 ± 0.00")],
    }


def test_one_seed_shows_no_spread_and_no_direction():
    assert cells([member("base", 0, 20.0), member("down", 0, 19.5)]) == {"down": [Delta("-0.50")]}


def test_a_difference_that_rounds_to_zero_has_no_minus():
    members = [member("base", 0, 20.0), member("near", 0, 19.9999)]
    assert cells(members) == {"near": [Delta("+0.00")]}


def test_seeds_that_one_of_them_lacks_are_left_out_and_counted():
    members = [member("base", 0, 20.0), member("base", 1, 30.0), member("one", 1, 33.0)]
    assert cells(members) == {"one": [Delta("+3.00 (n=1)")]}


@pytest.mark.parametrize(
    ("value", "protocol"),
    [
        (19.0, {"count": 12}),
        (19.0, None),
        (19.0, {}),
        (None, PROTOCOL),
        (float("nan"), PROTOCOL),
        (float("inf"), PROTOCOL),
    ],
    ids=["other protocol", "no protocol", "empty protocol", "no value", "nan", "inf"],
)
def test_what_does_not_compare_has_no_difference(value, protocol):
    (cell,) = cells([member("base", 0, 20.0), member("other", 0, value, protocol)])["other"]
    assert cell == Delta("–")  # noqa: RUF001 - an en dash


def test_a_metric_that_only_the_variant_has_has_no_difference():
    extra = {**member("", 0, 1.0).metrics[0], "name": "reconstruction/ssim", "label": "SSIM"}
    other = MemberMetrics("other", 0, [*member("", 0, 21.0).metrics, extra])
    _, rows = delta_table([member("base", 0, 20.0), other], "base")
    assert [(row.column.label, row.cells[0].text) for row in rows] == [
        ("PSNR", "+1.00"),
        ("SSIM", "–"),  # noqa: RUF001
    ]


@pytest.mark.parametrize("members", [[], [member("a", 0, 1.0)], [member("base", 0, 1.0)]])
def test_there_is_nothing_without_the_base_and_another(members):
    assert delta_table(members, "base") == ([], [])

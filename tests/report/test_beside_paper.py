"""Published values of a sweep beside the results of its members."""

from __future__ import annotations

from typing import Any

from pae_framework.report.beside_paper import NOT_RUN, PaperTable, paper_table
from pae_framework.report.table import MemberMetrics


def metric(name: str, label: str, value: float | None, **at: Any) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "value": value,
        "higher_is_better": label == "GSQ",
        "at": at,
        "protocol": {"count": 10},
    }


def table(
    values: dict[str, dict[str, float]],
    measured: dict[tuple[str, int], list[dict[str, Any]]],
    variants: tuple[str, ...] = ("none", "all"),
) -> PaperTable:
    members = [MemberMetrics(variant, seed, found) for (variant, seed), found in measured.items()]
    return paper_table("a table", values, variants, members)


def cells(found: PaperTable) -> dict[str, tuple[tuple[str, str], ...]]:
    return {row.variant: row.cells for row in found.rows}


VALUES = {"none": {"GSQ": 0.19, "gFID": 7.18}, "all": {"GSQ": 0.5, "gFID": 1.86}}


def test_a_variant_that_has_not_run_keeps_its_row() -> None:
    found = table(VALUES, {})
    assert cells(found) == {
        "none": (("0.19", NOT_RUN), ("7.18", NOT_RUN)),
        "all": (("0.50", NOT_RUN), ("1.86", NOT_RUN)),
    }
    assert [each.ours for each in found.metrics] == [None, None]
    assert found.others == []


def test_ours_is_the_mean_over_seeds_and_half_their_range() -> None:
    runs = {
        ("all", seed): [metric("manifold/gsq", "GSQ", value)]
        for seed, value in enumerate((0.6, 0.8))
    }
    found = table(VALUES, runs)
    assert cells(found)["all"] == (("0.50", "0.700 ± 0.100"), ("1.86", "–"))  # noqa: RUF001
    assert cells(found)["none"] == (("0.19", NOT_RUN), ("7.18", NOT_RUN))
    assert [(each.name, each.ours, each.arrow) for each in found.metrics] == [
        ("GSQ", "GSQ", "↑"),
        ("gFID", None, ""),
    ]


def test_an_fid_stands_beside_a_gfid_and_before_a_distance_in_other_features() -> None:
    fd = metric("generation/fd_x", "gFD", 9.0, generator_step=500)
    fid = metric("adm/fid", "FID", 2.5)
    only_fd = table(VALUES, {("all", 0): [fd]})
    assert (only_fd.metrics[1].ours, cells(only_fd)["all"][1]) == ("gFD", ("1.86", "9.000"))
    assert only_fd.others == ["gFD instead of gFID"]
    both = table(VALUES, {("all", 0): [fd, fid]})
    assert (both.metrics[1].ours, cells(both)["all"][1]) == ("FID", ("1.86", "2.500"))


def test_of_several_training_steps_the_last_stands_beside_the_paper() -> None:
    runs = [metric("generation/fd_x", "gFD", 9.0 - k, generator_step=100 * k) for k in (1, 2, 3)]
    assert cells(table(VALUES, {("all", 0): runs}))["all"][1] == ("1.86", "6.000")


def test_values_of_references_are_not_ours() -> None:
    reference = {**metric("manifold/gsq", "GSQ", 0.1), "subject": {"reference": "pixels"}}
    assert cells(table(VALUES, {("all", 0): [reference]}))["all"][0] == ("0.50", "–")  # noqa: RUF001


def test_a_variant_without_published_values_has_a_dash() -> None:
    found = table({"all": {"gFID": 2}}, {}, ("all", "mine"))
    assert cells(found) == {"all": (("2", NOT_RUN),), "mine": (("–", NOT_RUN),)}  # noqa: RUF001

"""Published values of a sweep beside the results of its members."""

from __future__ import annotations

from typing import Any

import pytest

from pae_framework.report.beside_paper import NOT_RUN, PaperTable, paper_table
from pae_framework.report.table import MemberMetrics
from pae_framework.report.text import paper_markdown


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
    assert [each.heading for each in found.metrics] == ["ours (none)"] * 2
    assert "instead of" not in " ".join(found.notes)


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
    assert only_fd.metrics[1].heading == "ours (gFD)"
    assert "Ours is another metric: gFD instead of gFID." in only_fd.notes[0]
    assert "gFD at generator step 500" in only_fd.notes[0]
    both = table(VALUES, {("all", 0): [fd, fid]})
    assert (both.metrics[1].ours, cells(both)["all"][1]) == ("FID", ("1.86", "2.500"))


FD = metric("generation/fd_x", "gFD", 9.0)
FID = metric("adm/fid", "FID", 2.5)
OTHER_FD = metric("generation/fd_y", "gFD", 5.0)


@pytest.mark.parametrize(
    ("measured", "ours"),
    [
        ({"none": [FID, FD], "all": [FD]}, ("9.000", "9.000")),
        ({"none": [FD], "all": [FD, FID]}, ("9.000", "9.000")),
        ({"none": [FID, FD], "all": [{**FID, "value": None}, FD]}, ("9.000", "9.000")),
        ({"none": [FD, OTHER_FD], "all": [OTHER_FD]}, ("5.000", "5.000")),
        ({"none": [FD, FID], "all": [FD, FID]}, ("2.500", "2.500")),
        ({"none": [FID], "all": [FD]}, ("2.500", "–")),  # noqa: RUF001
        ({"all": [FID, FD]}, (NOT_RUN, "2.500")),
        ({"none": [{**FID, "value": None}], "all": []}, ("–", "–")),  # noqa: RUF001
    ],
)
def test_beside_the_paper_is_the_closest_metric_that_most_variants_have(
    measured: dict[str, list[dict[str, Any]]], ours: tuple[str, str]
) -> None:
    found = table(VALUES, {(variant, 0): metrics for variant, metrics in measured.items()})
    assert tuple(row.cells[1][1] for row in found.rows) == ours


def test_of_steps_that_only_some_variants_reach_none_stands_beside_the_paper() -> None:
    steps = [metric("generation/fd_x", "gFD", 9.0 - k, generator_step=100 * k) for k in (1, 2, 3)]
    found = table(VALUES, {("none", 0): steps, ("all", 0): steps[:2]})
    assert [row.cells[1][1] for row in found.rows] == ["7.000", "7.000"]
    assert "gFD at generator step 200" in found.notes[0]


def test_marks_of_values_that_do_not_compare_have_a_legend() -> None:
    other = {**FID, "value": 3.0, "protocol": {"count": 20}}
    found = table(VALUES, {("none", 0): [FID], ("all", 0): [other]})
    assert [row.cells[1][1] for row in found.rows] == ["2.500 [1]", "3.000 [2]"]
    text = paper_markdown(found)
    assert all(mark in text.partition("Paper: ")[2] for mark in ("FID ↓", "count", "10", "20"))


def test_a_document_has_the_notes_of_the_report() -> None:
    found = table(VALUES, {("none", 0): [FD], ("all", 0): [FD]})
    text = paper_markdown(found)
    assert "| variant | GSQ, paper | GSQ, ours (none) | gFID ↓, paper | gFID, ours (gFD) |" in text
    assert "a table" in text
    assert "gFD instead of gFID" in text
    assert "half their range" in text
    assert "A dash" in text
    assert all(note in text for note in found.notes)


def test_of_several_training_steps_the_last_stands_beside_the_paper() -> None:
    runs = [metric("generation/fd_x", "gFD", 9.0 - k, generator_step=100 * k) for k in (1, 2, 3)]
    assert cells(table(VALUES, {("all", 0): runs}))["all"][1] == ("1.86", "6.000")


def test_values_of_references_are_not_ours() -> None:
    reference = {**metric("manifold/gsq", "GSQ", 0.1), "subject": {"reference": "pixels"}}
    assert cells(table(VALUES, {("all", 0): [reference]}))["all"][0] == ("0.50", "–")  # noqa: RUF001


def test_a_variant_without_published_values_has_a_dash() -> None:
    found = table({"all": {"gFID": 2}}, {}, ("all", "mine"))
    assert cells(found) == {"all": (("2", NOT_RUN),), "mine": (("–", NOT_RUN),)}  # noqa: RUF001

"""Tables of one run and of a sweep; by hand, and without torch."""

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pae_framework.report.comparing import are_comparable
from pae_framework.report.content import SweepContent
from pae_framework.report.html import render_sweep
from pae_framework.report.table import (
    MemberMetrics,
    comparison_table,
    result_rows,
    table_notes,
)
from pae_framework.report.text import (
    comparison_markdown,
    comparison_tables,
    panels_markdown,
    results_markdown,
    results_table,
)

PROTOCOL = {"count": 24, "guidance": 1.5}


def metric(name, label, value, higher=False, std=None, **at):
    return {
        "name": name,
        "label": label,
        "value": value,
        "std": std,
        "higher_is_better": higher,
        "at": at,
        "protocol": PROTOCOL,
    }


def member(variant, seed, gfd, psnr=20.0):
    return MemberMetrics(
        variant,
        seed,
        [
            metric("generation/fd", "gFD", gfd, generator_step=100),
            metric("reconstruction/psnr", "PSNR", psnr, higher=True),
        ],
    )


def printed(*renderables):
    console = Console(file=io.StringIO(), width=100)
    console.print(*renderables)
    return console.file.getvalue()


def test_tables_need_no_torch():
    code = (
        "import sys, pae_framework.report.table, pae_framework.report.text;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rows_of_one_run():
    rows = result_rows(
        [
            metric("generation/fd", "gFD", 1.8731, generator_step=1000),
            metric("manifold/gsq", "GSQ", 0.7612, higher=True, std=0.0118),
        ]
    )
    assert [(r.label, r.condition, r.value, r.spread, r.arrow) for r in rows] == [
        ("GSQ", "", "0.761", "± 0.012", "↑"),
        ("gFD", "generator step 1000", "1.873", "", "↓"),
    ]


def test_mean_and_half_range_over_seeds_by_hand():
    columns, rows = comparison_table([member("a", 0, 2.0), member("a", 1, 3.0), member("b", 0, 1)])
    assert [column.heading for column in columns] == ["PSNR ↑", "gFD ↓, generator step 100"]
    a, b = rows
    assert (a.variant, a.seeds) == ("a", (0, 1))
    assert (a.cells[1].mean, a.cells[1].half_range, a.cells[1].count) == (2.5, 0.5, 2)
    assert a.cells[1].text == "2.500 ± 0.500"
    assert (b.cells[1].mean, b.cells[1].half_range, b.cells[1].text) == (1.0, None, "1.000")


def test_metric_missing_for_some_seeds_or_variants():
    only_psnr = MemberMetrics("a", 1, [metric("reconstruction/psnr", "PSNR", 21.0, higher=True)])
    broken = MemberMetrics("b", 0, [metric("generation/fd", "gFD", None, generator_step=100)])
    _, (a, b) = comparison_table([member("a", 0, 2.0), only_psnr, broken])
    assert a.cells[1].text == "2.000 (n=1)"
    assert b.cells[0].count == b.cells[1].count == 0
    assert b.cells[0].mean is None


@pytest.mark.parametrize(
    ("b", "best"),
    [
        ((1.0, 1.4), [False, True]),  # b's worst beats a's best
        ((1.0, 2.1), [False, False]),  # the ranges touch
        ((1.0,), [False, False]),  # one seed shows nothing
        ((1.0, float("nan")), [False, False]),
    ],
)
def test_best_value_is_marked_only_if_ranges_do_not_overlap(b, best):
    members = [member("a", 0, 2.0), member("a", 1, 3.0)]
    members += [member("b", seed, value) for seed, value in enumerate(b)]
    _, rows = comparison_table(members)
    assert [row.cells[1].best for row in rows] == best


@given(st.lists(st.floats(0.1, 100.0), min_size=1, max_size=6))
def test_every_seed_lies_within_the_half_range_of_the_middle(values):
    _, (row,) = comparison_table([member("a", i, value) for i, value in enumerate(values)])
    cell = row.cells[1]
    assert min(values) - 1e-9 <= cell.mean <= max(values) + 1e-9
    if len(values) > 1:
        assert cell.half_range == pytest.approx((max(values) - min(values)) / 2)


def test_metrics_under_other_conditions_have_a_markdown_table_of_their_own():
    columns, rows = comparison_table([member("a", 0, 2.0), member("a", 1, 3.0)])
    first, second = panels_markdown(columns, rows)
    assert first.splitlines()[0] == "| variant | seeds | PSNR ↑ |"
    assert second.splitlines()[0] == "| variant | seeds | gFD ↓, generator step 100 |"
    assert second.splitlines()[2] == "| a | 0, 1 | 2.500 ± 0.500 |"


def test_markdown_and_terminal_show_the_same_values():
    columns, rows = comparison_table(
        [member("a|b", 0, 2.0), member("a|b", 1, 3.0), member("[red]", 0, 1.0)]
    )
    lines = comparison_markdown(columns, rows).splitlines()
    assert lines[0] == "| variant | seeds | PSNR ↑ | gFD ↓, generator step 100 |"
    assert lines[2] == "| a\\|b | 0, 1 | 20.00 ± 0.00 | 2.500 ± 0.500 |"
    text = printed(*comparison_tables(columns, rows))
    for word in ("a|b", "[red]", "20.00 ± 0.00", "2.500 ± 0.500", "Generation: gFD ↓"):
        assert word in text


def test_one_run_in_markdown_and_terminal():
    rows = result_rows([metric("generation/fd", "gFD", 1.8731, generator_step=1000)])
    assert results_markdown(rows).splitlines()[2] == "| gFD ↓ | generator step 1000 | 1.873 |"
    assert "1.873" in printed(results_table(rows))


def test_nothing_measured_is_an_empty_table():
    columns, rows = comparison_table([MemberMetrics("a", 0, [])])
    assert (columns, [row.cells for row in rows]) == ([], [()])
    assert result_rows([]) == []


# --- values that do not compare -------------------------------------------------------------------


def measured(variant, seed, value, **protocol):
    one = {**metric("generation/fd", "gFD", value), "protocol": {**PROTOCOL, **protocol}}
    return MemberMetrics(variant, seed, [one])


def texts(*members):
    (column,), rows = comparison_table(members)
    return column, [row.cells[0].text for row in rows]


def test_variants_that_do_not_compare_share_a_column_with_numbers_and_the_reason():
    column, cells = texts(
        measured("a", 0, 2.0), measured("b", 0, 3.0, guidance=1.0), measured("c", 0, 4.0)
    )
    assert cells == ["2.000 [1]", "3.000 [2]", "4.000 [1]"]
    (note,) = column.notes
    assert "guidance [1] 1.5, [2] 1" in note


def test_seeds_of_one_variant_that_do_not_compare_have_no_mean():
    column, cells = texts(
        measured("a", 0, 2.0), measured("a", 1, 4.0, count=9), measured("b", 0, 5.0)
    )
    assert cells == ["2.000 (n=1) [1]; 4.000 (n=1) [2]", "5.000 [1]"]
    _, rows = comparison_table([measured("a", 0, 2.0), measured("a", 1, 4.0, count=9)])
    assert rows[0].cells[0].mean is None
    assert any("count" in note for note in column.notes)


def test_values_without_a_protocol_compare_with_nothing():
    unknown = [MemberMetrics(v, 0, [{**metric("g/x", "X", 1.0), "protocol": None}]) for v in "ab"]
    column, cells = texts(*unknown)
    assert cells == ["1.000 [1]", "1.000 [2]"]
    assert "protocol [1] not stated, [2] not stated" in column.notes[0]


def test_no_variant_is_best_among_values_that_do_not_compare():
    better = [measured("a", seed, 1.0 + seed / 10) for seed in (0, 1)]
    worse = [measured("b", seed, 5.0 + seed / 10, guidance=1.0) for seed in (0, 1)]
    _, rows = comparison_table([*better, *worse])
    assert not any(row.cells[0].best for row in rows)


def own_extractor(variant, seed, value, digest):
    return measured(variant, seed, value, extractor_digest=digest, extractor_seed=seed)


def test_a_mean_over_seeds_with_extractors_of_their_own_is_told():
    column, cells = texts(own_extractor("a", 0, 2.0, "e0"), own_extractor("a", 1, 4.0, "e1"))
    assert cells == ["3.000 ± 1.000"]
    (note,) = column.notes
    assert "own extractor" in note
    column, _ = texts(own_extractor("a", 0, 2.0, "e0"), own_extractor("b", 0, 4.0, "e0"))
    assert column.notes == ()


def test_variants_with_extractors_of_their_own_are_told_in_words():
    column, cells = texts(own_extractor("a", 0, 2.0, "5d1a"), own_extractor("b", 0, 4.0, "77c0"))
    assert cells == ["2.000 [1]", "4.000 [2]"]
    (note,) = column.notes
    assert "each run trained its own extractor" in note
    assert "5d1a" not in note


def test_every_table_of_a_sweep_shows_the_marks_and_the_reason():
    members = [measured("a", 0, 2.0), measured("b", 0, 3.0, guidance=1.0)]
    columns, rows = comparison_table(members)
    (note,) = table_notes(columns)
    page = render_sweep(SweepContent(name="s", members=members, description="", recipe_yaml=""))
    terminal = printed(*comparison_tables(columns, rows))
    for text in (page, terminal, comparison_markdown(columns, rows)):
        assert "[1]" in text
        assert "[2]" in text
    assert note.split(": ", 1)[1] in comparison_markdown(columns, rows)
    assert "guidance [1] 1.5" in page


@given(st.lists(st.sampled_from([1.0, 1.5, 2.0]), min_size=1, max_size=6))
def test_cells_have_one_number_exactly_if_their_values_compare(guidances):
    members = [measured(str(i), 0, 1.0, guidance=x) for i, x in enumerate(guidances)]
    _, cells = texts(*members)
    protocols = [member.metrics[0]["protocol"] for member in members]
    for i, one in enumerate(protocols):
        for k, other in enumerate(protocols):
            assert (cells[i] == cells[k]) == are_comparable(one, other)

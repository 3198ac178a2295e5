"""Tables of one run and of a sweep; by hand, and without torch."""

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pae_framework.report.table import MemberMetrics, comparison_table, result_rows
from pae_framework.report.text import (
    comparison_markdown,
    comparison_tables,
    results_markdown,
    results_table,
)


def metric(name, label, value, higher=False, std=None, **at):
    return {
        "name": name,
        "label": label,
        "value": value,
        "std": std,
        "higher_is_better": higher,
        "at": at,
        "protocol": {},
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

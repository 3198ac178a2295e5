"""benchmarks/: ratios are to the first way in the same round; every measurement runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks import (
    checkpoints,
    features,
    latents,
    operations,
    plugin_listing,
    sampling,
    tokenizer,
    training,
)
from benchmarks.subject import Subject
from benchmarks.timing import Timing, in_turn, median_interval

TINY = Subject(
    device=torch.device("cpu"),
    preset=None,
    depth=1,
    width=48,
    heads=2,
    channels=4,
    side=4,
    batch=2,
    bf16=False,
)


def test_ratios_are_medians_over_rounds_of_the_ratio_within_a_round() -> None:
    def taking(seconds: Iterator[float]) -> float:
        return next(seconds)

    slow, fast = iter([9.0, 2.0, 4.0, 6.0]), iter([9.0, 1.0, 8.0, 3.0])  # the first warms up
    found = in_turn({"slow": lambda: taking(slow), "fast": lambda: taking(fast)}, rounds=3)
    assert [(t.name, t.seconds, t.ratio) for t in found] == [("slow", 4.0, 1.0), ("fast", 3.0, 0.5)]
    assert found[1].spread == (0.5, 2.0)
    assert found[1].fastest == 0.5, "1 second of (1, 8, 3) against 2 of (2, 4, 6)"


@pytest.mark.parametrize(
    ("count", "ends"), [(5, None), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (25, (8, 18))]
)
def test_the_interval_of_a_median_follows_the_table_of_the_sign_test(
    count: int, ends: tuple[int, int] | None
) -> None:
    """6 of 6 on one side have 2 / 64 < 5 %; 5 of 5 have 2 / 32. At 25, the table gives 8 to 18."""
    assert median_interval([float(value) for value in range(count, 0, -1)]) == ends


@pytest.mark.parametrize(
    "measure",
    [
        lambda: training.engine_overhead(TINY, 1, 2),
        lambda: training.against_peer(TINY, 1, 1),
        lambda: sampling.guidance_interval(TINY, 1, 2),
        lambda: latents.reading(TINY, 1, 2),
        lambda: latents.extraction(TINY, 1, 4),
        lambda: checkpoints.saving(TINY.device, 1, size=1 << 16),
        lambda: features.cached(TINY, 1, 1),
    ],
    ids=["engine", "peer", "guidance", "reading", "extraction", "checkpoints", "features"],
)
def test_every_measurement_runs(measure) -> None:
    found = measure()
    assert 1.0 in [timing.ratio for timing in found]
    assert all(timing.seconds > 0 for timing in found)


def test_the_table_of_kernels_is_in_the_docs() -> None:
    found = operations.table(operations.block_kernels(operations.small_subject()))
    page = Path(__file__).parents[1] / "docs" / "performance.md"
    assert found in page.read_text(encoding="utf-8")


def test_kernels_are_counted_by_kind() -> None:
    """x W, its cast to bf16 and back, a sum over rows, a copy; a transposed view is no kernel."""
    weight = torch.ones(3, 3)
    with operations.Kernels([weight]) as kernels:
        y = torch.ones(2, 3).bfloat16() @ weight.bfloat16().T
        y.float().sum(0).neg().clone()
    expected = (1, 0, 1, 2, 1, 1)
    assert tuple(kernels.counts[kind] for kind in operations.KINDS[:-1]) == expected


def test_the_peer_has_the_networks_size() -> None:
    """Also where a preset names it: B/1 is 12 blocks of width 768 with 12 heads."""
    from dataclasses import replace

    assert replace(TINY, preset="B/1").size == replace(TINY, depth=12, width=768, heads=12).size


def test_the_command_prints_medians_and_ranges(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = [
        Timing("first", 0.5, 1.0, (1.0, 1.0), None, 1.0),
        Timing("second", 0.25, 0.5, (0.4, 0.75), (0.45, 0.625), 0.375),
    ]
    asked: list[tuple[str, ...]] = []

    def against_plain(device: object, changes: tuple[str, ...], *how: object) -> list[Timing]:
        asked.append((*changes, *map(str, how)))
        return taken

    monkeypatch.setattr("benchmarks.tokenizer.against_plain", against_plain)
    monkeypatch.setattr("sys.argv", ["benchmarks", "tokenizer-both", "--rounds", "7"])
    benchmarks.main()
    printed = capsys.readouterr().out
    assert re.search(
        r"second\W+250\.00\W+0\.500\W+0\.450 to 0\.625\W+0\.400 to 0\.750\W+0\.375", printed
    )
    assert asked == [(tokenizer.PATCHGAN, tokenizer.LPIPS, "False", "7", "4")]


@pytest.mark.slow
def test_plugins_are_listed_quickly_however_many_there_are() -> None:
    """200 more take less than half as much time again, by processor time."""
    own, many = plugin_listing.measure(200, 7, plugin_listing.processor_seconds)
    assert own.ratio == 1
    assert many.fastest < 1.5

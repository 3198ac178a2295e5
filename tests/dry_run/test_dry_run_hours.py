"""Hours of a dry run: from rates that were measured, and only then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pae_framework.dry_run import rates, summary
from pae_framework.dry_run.rates import CardRates, rates_text, read_rates
from pae_framework.recipe.stage_table import STAGES
from pae_framework.testing.pytest import Pae

CARD = "Card 9000"
MEASURED = {"generator": {"bf16": 2e9, "float32": 1e9}, "sample": {"tf32": 4e9}}


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU whose rates are known."""
    found = CardRates(measured="2026-01-02", torch="2.9", flops_per_second=MEASURED)
    monkeypatch.setattr(summary, "card_at_hand", lambda runtime: CARD)
    monkeypatch.setattr(summary, "read_rates", lambda: {CARD: found})


def stages(pae: Pae, *arguments: str) -> dict[str, dict[str, float]]:
    answer = json.loads(pae("run", "quickstart", *arguments, "--dry-run", "--json").out)
    return {stage["stage"]: stage for stage in answer["stages"]}


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("settings", "rate"), [((), 1e9), (("generator.train.precision=bf16",), 2e9)]
)
def test_hours_are_flops_over_the_rate_of_the_stage_and_its_arithmetic(pae, settings, rate):
    found = stages(pae, *settings)
    flops = found["generator"]["flops"]
    assert flops > 0
    assert found["generator"]["hours"] == pytest.approx(flops / rate / 3600)
    shared = stages(pae, *settings, "--processes", "4")
    assert shared["generator"]["hours"] == pytest.approx(flops / rate / 3600 / 4)
    # Nothing was measured for these.
    assert all(found[name]["hours"] is None for name in ("tokenizer", "sample", "report"))


@pytest.mark.usefixtures("card")
def test_tf32_is_an_arithmetic_of_its_own(pae: Pae):
    found = stages(pae, "runtime.tf32=true")
    assert found["sample"]["hours"] == pytest.approx(found["sample"]["flops"] / 4e9 / 3600)
    assert found["generator"]["hours"] is None


@pytest.mark.usefixtures("card")
def test_the_table_names_the_card_the_date_and_the_processes(pae: Pae):
    printed = " ".join(pae("run", "quickstart", "--dry-run", "--processes", "2").out.split())
    assert "hours" in printed
    for fact in (f"one {CARD} in each process", "2026-01-02", "torch 2.9"):
        assert fact in printed


@pytest.mark.parametrize("known", [False, True])
def test_without_a_rate_there_are_no_hours(pae: Pae, monkeypatch, known: bool):
    monkeypatch.setattr(summary, "card_at_hand", lambda runtime: CARD if known else None)
    assert all(stage["hours"] is None for stage in stages(pae).values())
    assert "hours" not in pae("run", "quickstart", "--dry-run").out


def test_shipped_rates_are_those_of_stages_and_types_of_arithmetic():
    """Of an H100: 492 images/s of 712 GFLOP, 54 of 2.215 TFLOP, 13.9 of 35 passes of 237 GFLOP."""
    found = read_rates()
    for card in found.values():
        assert card.flops_per_second.keys() <= STAGES.keys()
        types = {name for rates in card.flops_per_second.values() for name in rates}
        assert types <= {"bf16", "tf32", "float32"}
    h100 = found["NVIDIA H100 80GB HBM3"].flops_per_second
    assert h100["generator"]["bf16"] == pytest.approx(492 * 712e9, rel=0.01)
    assert h100["tokenizer"]["bf16"] == pytest.approx(54 * 2.215e12, rel=0.01)
    assert h100["sample"]["tf32"] == pytest.approx(13.9 * 35 * 237.3e9, rel=0.01)


def test_a_file_of_rates_reads_back(tmp_path: Path):
    path = tmp_path / "rates.json"
    assert read_rates(path) == {}
    path.write_text(rates_text(read_rates()), encoding="utf-8")
    assert read_rates(path) == read_rates(rates.RATES)

"""scripts/gpu_check.py: what it says without a GPU, and its checks where there is one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks import card
from pae_framework.dry_run.rates import read_rates

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.py"
NAMES = ("pipeline", "processes", "compiled", "fused_adamw", "xformers")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_that_nothing_was_checked(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert script.main([]) == 0
    assert script.main(["--require"]) == 3
    assert capsys.readouterr().out == "No CUDA device; nothing was checked.\n" * 2


def test_every_check_is_called_below(script: ModuleType) -> None:
    assert tuple(script.CHECKS) == NAMES


def test_the_optimizer_check_holds_on_the_cpu_too(script: ModuleType) -> None:
    # The same arithmetic on both sides: not a bit apart.
    assert script.fused_adamw(torch.device("cpu")) == (
        "fused: True; weights differ by at most 0.0e+00 after 5 steps"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pipeline", "processes", "compiled"])
def test_on_the_cpu(script: ModuleType, name: str) -> None:
    print(script.CHECKS[name](torch.device("cpu")))


def row(value: float, **facts: Any) -> card.Row:
    return card.Row(**{"name": "work", "value": value, "earlier": 2.0, "goal": 8.0, **facts})


def test_ratios_say_how_much_better_a_figure_is() -> None:
    """4 images/s are twice 2 and half of 8; to wait 4 s is half as good as 2 s, twice 8 s."""
    speed, waiting = row(4.0, flops=1e9), row(4.0)
    assert (speed.of_earlier, speed.of_goal) == (2.0, 0.5)
    assert (waiting.of_earlier, waiting.of_goal) == (0.5, 2.0)
    assert row(4.0, earlier=None).of_earlier is None


def test_the_table_has_a_line_for_each_row(script: ModuleType) -> None:
    """4 images/s of 1 GFLOP are 40 % of 10 GFLOP/s."""
    rows = [row(4.0, flops=1e9, memory=3.0), row(4.0, earlier=None)]
    *_, first, second = script.table(rows, 1e10).splitlines()
    assert first == "| work | 4 | 2 | 2.00 | 8 | 0.50 | 40% | 3.0 |"
    assert second == "| work | 4 | not measured |  | 8 | 2.00 |  |  |"


def test_rates_are_added_to_those_of_other_cards_and_stages(
    script: ModuleType, tmp_path: Path
) -> None:
    path, kind = tmp_path / "rates.json", ("generator", "bf16")
    script.write_rates(path, "A", [row(4.0, flops=1e9, rate=("sample", "tf32")), row(9.0)])
    script.write_rates(path, "B", [row(4.0, flops=1e9, rate=kind), row(6.0, flops=1e9, rate=kind)])
    script.write_rates(path, "A", [row(5.0, flops=1e9, rate=kind)])
    found = {name: rates.flops_per_second for name, rates in read_rates(path).items()}
    assert found == {
        "A": {"sample": {"tf32": 4e9}, "generator": {"bf16": 5e9}},
        "B": {"generator": {"bf16": 6e9}},
    }


def test_rows_are_measured_on_the_cpu(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates, rows = tmp_path / "rates.json", [name for name in card.ROWS if name != "tokenizer"]
    assert script.main(["--cpu", "--rates", str(rates), "--only", *rows, "attention"]) == 0
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    for fact in (
        "LightningDiT",
        "checkpoint",
        "sampling",
        "encoding",
        "stage latents",
        "sdpa, head width 72",
    ):
        assert fact in printed
    assert printed.count(" ms  ") == 10 * 4  # the costliest kernels of each row but two
    found = read_rates(rates)["CPU"].flops_per_second
    assert found.keys() == {"generator", "sample", "latents"}
    assert all(rate > 0 for kinds in found.values() for rate in kinds.values())


def test_a_row_that_fails_is_named_and_the_others_are_measured(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(device: torch.device, size: card.Size) -> list[card.Row]:
        raise RuntimeError("out of memory")

    rows = {"broken": failing, "whole": lambda device, size: [row(4.0)]}
    monkeypatch.setattr(card, "ROWS", rows)
    found, failed = script.measure(CPU, card.SMALL, rows)
    assert (found, failed) == ([row(4.0)], 1)
    assert "broken: FAILED  RuntimeError: out of memory" in capsys.readouterr().out


def test_sizes_on_a_gpu_are_those_of_the_paper() -> None:
    """LightningDiT-XL/1: 712 GFLOP for the training step of an image. The recipe loads."""
    assert 3 * card.forward_flops(card.FULL) == pytest.approx(712e9, rel=1e-3)
    loaded = card.full_recipe(card.FULL, torch.device("cuda"), "batch_size: 32, precision: bf16")
    assert loaded.recipe.tokenizer.train.precision == "bf16"
    assert loaded.recipe.tokenizer.active_adversarial is not None


@pytest.mark.slow
def test_the_tokenizer_is_measured_on_the_cpu() -> None:
    (found,) = card.tokenizer(CPU, card.SMALL)
    assert found.value > 0
    assert len(found.kernels) == card.KERNELS


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu(script: ModuleType, name: str) -> None:
    assert torch.cuda.is_available(), "marked gpu: needs a CUDA device"
    try:
        print(script.CHECKS[name](torch.device("cuda")))
    except script.SkippedError as reason:
        pytest.skip(str(reason))

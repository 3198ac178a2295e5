"""scripts/gpu_check.py: what it says without a GPU, and its checks where there is one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.py"
NAMES = ("pipeline", "processes", "compiled", "fused_adamw", "speed", "tokenizers", "xformers")


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


@pytest.mark.slow
def test_the_tokenizers_check_on_the_cpu(script: ModuleType) -> None:
    found = script.tokenizers(torch.device("cpu"), ("mae_full",), steps=2, smoke=True)
    assert "mae_full eager" in found
    assert "mae_full compiled" in found


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu(script: ModuleType, name: str) -> None:
    assert torch.cuda.is_available(), "marked gpu: needs a CUDA device"
    try:
        print(script.CHECKS[name](torch.device("cuda")))
    except script.SkippedError as reason:
        pytest.skip(str(reason))

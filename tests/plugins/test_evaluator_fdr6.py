"""FDr6 in `fidelity`: all six or none, and never without `random` if weights are random."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pae_evaluators import fdr6
from pae_evaluators.config import FidelityConfig
from pae_evaluators.inception_metrics import Fidelity
from pae_framework.contracts import Metric
from pae_framework.metrics.fdr6 import INCEPTION, JUDGES, VALIDATION, Judge
from pae_framework.metrics.inception import PUBLISHED
from pae_framework.testing.evaluation_inputs import SyntheticInputs

NAMES = list(JUDGES)


class Inputs(SyntheticInputs):
    """Features of the five networks are the mean color times the judge's number."""

    def __init__(self, sha256: str = PUBLISHED) -> None:
        super().__init__(FidelityConfig().needs)
        self.sha256 = sha256

    def inception(self, weights: str) -> Any:
        network = super().inception(weights)
        network.sha256 = self.sha256
        return network

    def judge(self, name: str, weights: str) -> Callable[[Tensor], Tensor]:
        scale = NAMES.index(name) + 1
        return lambda images: scale * images.float().mean((2, 3))


@pytest.fixture(autouse=True)
def _three_features(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {
        name: Judge(name, judge.side, judge.pool, 3, judge.validation)
        for name, judge in JUDGES.items()
    }
    monkeypatch.setattr(fdr6, "JUDGES", changed)


def present(monkeypatch: pytest.MonkeyPatch, absent: str = "") -> None:
    missing = lambda self, weights: "gone" if self.model == absent else None  # noqa: E731
    monkeypatch.setattr(Judge, "missing", missing)


def evaluate(inputs: Inputs, tmp_path: Path, **parameters: Any) -> dict[str, Metric]:
    found = Fidelity(FidelityConfig(**parameters)).evaluate(inputs, tmp_path)
    return {metric.name.removeprefix("fidelity/"): metric for metric in found}


def test_it_is_the_mean_of_the_six_distances_over_their_constants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    present(monkeypatch)
    found = evaluate(Inputs(), tmp_path, fdr6="default")
    of_color = found["fd_convnextv2_base"].value
    assert of_color > 0
    # Features k times as large are k^2 times as far apart.
    wanted = found["fid"].value / VALIDATION[INCEPTION]
    wanted += sum((k + 1) ** 2 * of_color / VALIDATION[name] for k, name in enumerate(NAMES))
    assert found["fdr6"].value == pytest.approx(wanted / 6)
    assert found["fdr6"].label == "FDr6"
    assert found["fd_vit_large_patch16_224"].label == "FD (vit_large_patch16_224.mae)"
    assert found["fdr6"].protocol["over"] == VALIDATION


def test_without_the_setting_there_is_none(tmp_path: Path) -> None:
    assert not any("fdr6" in name for name in evaluate(Inputs(), tmp_path))


@pytest.mark.parametrize("absent", NAMES)
def test_without_all_six_it_is_not_available(
    absent: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    present(monkeypatch, absent)
    with caplog.at_level(logging.WARNING):
        found = evaluate(Inputs(), tmp_path, fdr6="default")
    assert not any("fdr6" in name for name in found)
    assert "fid" in found
    assert f"FDr6: not available: lacks {absent}" in caplog.text


def test_what_is_not_available_and_what_is_doubtful_is_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    present(monkeypatch, NAMES[0])
    evaluator = Fidelity(FidelityConfig(fdr6="default"))
    evaluator.evaluate(Inputs(), tmp_path)
    assert NAMES[0] in evaluator.notes.not_available["FDr6"]
    assert evaluator.notes.cautions
    assert Fidelity(FidelityConfig()).notes.not_available == {}


@pytest.mark.parametrize("sha256", ["none", "0123"])
def test_it_needs_the_published_inception(
    sha256: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    present(monkeypatch)
    with caplog.at_level(logging.WARNING):
        found = evaluate(Inputs(sha256), tmp_path, fdr6="default")
    assert not any("fdr6" in name for name in found)
    assert "lacks Inception" in caplog.text


def test_random_weights_are_named(tmp_path: Path) -> None:
    found = evaluate(Inputs("none"), tmp_path, fdr6="none", weights="none")
    assert "fdr6" not in found
    assert found["fdr6_random"].label == "FDr6 (random)"
    others = [metric for name, metric in found.items() if name.startswith("fd_")]
    assert len(others) == 6
    assert all("random" in metric.label and "FID" not in metric.label for metric in others)


def test_preflight_names_the_weights_that_are_missing(tmp_path: Path) -> None:
    config = FidelityConfig(weights="none", fdr6=str(tmp_path))
    text = str(config.missing())
    assert [name for name in NAMES if f"{name}.safetensors" not in text] == []
    assert "fdr6=null" in text
    for name in NAMES:
        torch.save({}, tmp_path / f"{name}.safetensors")
    assert config.missing() is None
    assert FidelityConfig(weights="none", fdr6="none").missing() is None
    assert config.smoke().fdr6 is None

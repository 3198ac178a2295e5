"""`pae check-plugin` runs the conformance classes; fixtures of `pae_framework.testing.pytest`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from pae_framework.plugins import load_registry
from pae_framework.testing.pytest import Result, run_process

SOURCE = '''
from pydantic import Field
from pae_framework import hookimpl
from pae_framework.config import RegularizerConfig
from pae_framework.contracts import Regularizer

pae_api = 1

class PullConfig(RegularizerConfig):
    """Draws latents to a value."""

    value: float = Field({default}description="the value")

class Pull(Regularizer):
    def __init__(self, config):
        super().__init__(config)
        self.value = config.value

    def forward(self, inputs):
        return (inputs.posterior.latents - self.value).square().{reduce}()

@hookimpl
def pae_register_regularizers(register):
    register("pull", target=__name__ + ":Pull", config=__name__ + ":PullConfig", summary="pulls")
'''


def check(folder: Path, *words: str, default: str = "0.0, ", reduce: str = "mean") -> Result:
    source = SOURCE.replace("{default}", default).replace("{reduce}", reduce)
    (folder / "pull_file.py").write_text(source)
    return run_process("-m", "pae_framework", "check-plugin", *words, cwd=folder, timeout=600)


@pytest.mark.slow
def test_a_correct_file_passes_and_its_weight_is_named(tmp_path):
    (found,) = check(tmp_path, "pull_file.py", "--json").ok().json
    assert found["failed"] == 0
    assert found["registration"]["torch"]  # one file that holds the component, too, imports torch
    assert found["registration"]["seconds"] > 0
    assert found["registration"]["modules"] > 0
    states = {outcome["test"]: outcome["state"] for outcome in found["tests"]["regularizer:pull"]}
    assert {state for test, state in states.items() if test != "gpu"} == {"ok"}
    assert {"contract", "nan", "other_process", "compile", "meta_device"} <= states.keys()


@pytest.mark.timeout(600)
def test_a_broken_file_fails_with_the_contract_and_exit_code_3(tmp_path):
    failed = check(tmp_path, "pull_file.py", reduce="sum").fails(3)
    assert "mean over images" in failed.out
    assert "regularizer:pull" in failed.out


@pytest.mark.slow
def test_required_parameters_are_asked_for_and_given(tmp_path):
    asked = check(tmp_path, "pull_file.py", default="").fails(3)
    assert "regularizer:pull.value" in asked.out
    (found,) = (
        check(tmp_path, "pull_file.py", "regularizer:pull.value=2", "--json", default="").ok().json
    )
    assert found["failed"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["no-such-distribution"], "pae-framework"),
        (["nowhere.py"], "nowhere.py"),
        (["pull_file.py", "regularizer:push.value=2"], "regularizer:pull"),
        (["pull_file.py", "value=2"], "KIND:NAME"),
        (["pull_file.py", "regularizer:pull.value=["], "YAML"),
    ],
)
def test_wrong_usage_is_named(words, fact, tmp_path):
    assert fact in check(tmp_path, *words).fails(2).err


@pytest.mark.slow
def test_a_file_that_does_not_load_fails(tmp_path):
    (tmp_path / "other_file.py").write_text("raise ValueError('inside')")
    assert "inside" in check(tmp_path, "other_file.py").fails(3).out


@pytest.mark.slow
def test_an_installed_distribution_is_checked_by_its_name(tmp_path):
    done = check(tmp_path, "pae-bottlenecks", "--json").ok()
    (found,) = done.json
    assert found["registration"]["torch"] is None
    assert {"registration", "bottleneck:sphere", "bottleneck:gaussian"} <= found["tests"].keys()


# --- fixtures -------------------------------------------------------------------------------------


def light(default: str = "0.0, ") -> str:
    return SOURCE.replace("{default}", default).replace("{reduce}", "mean")


def test_a_module_or_file_is_a_plugin_during_one_test(with_plugin, pae, tmp_path):
    (tmp_path / "pull_file.py").write_text(light())
    assert with_plugin(tmp_path / "pull_file.py").find("regularizer", "pull")
    pae("check", "quickstart", "tokenizer.regularizers.pull.weight=1").ok()


def test_the_plugin_is_gone_in_the_next_test(pae):
    assert "pull_file" not in sys.modules
    assert "pull" not in {spec.name for spec in load_registry().specs("regularizer")}


def test_a_module_that_does_not_load_says_why(with_plugin, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "idle_module.py").write_text("pae_api = 1")
    with pytest.raises(AssertionError, match="idle_module"):
        with_plugin("idle_module")


def test_tiny_objects_fit_together(tiny_source, tiny_batch, tiny_encoder, tiny_tokenizer):
    images, labels = tiny_batch
    assert images.shape == (4, 3, 16, 16)
    assert labels.tolist() == [tiny_source[index].label for index in range(4)]
    tokens = tiny_encoder(tiny_encoder.normalize(images)).tokens
    assert tokens.shape == (4, 16, 24)
    with torch.no_grad():
        latents = tiny_tokenizer.encode(images).latents
    assert latents.shape == (4, 8, 4, 4)

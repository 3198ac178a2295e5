"""`pae check-plugin` runs the conformance classes; fixtures of `pae_framework.testing.pytest`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pae_framework.errors import UsageError
from pae_framework.plugins import load_registry
from pae_framework.testing.conformance import _chosen
from pae_framework.testing.pytest import Result, run_process

pytestmark = pytest.mark.timeout(600)

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


PRINTS = """
import atexit, ctypes, os

def speak(moment):
    print(moment)
    os.write(1, moment.encode())
    c = ctypes.CDLL(None)
    c.printf(b"C: %s\\n", moment.encode())
    c.fflush(None)

class Speaking(Pull):
    def forward(self, inputs):
        speak("in forward")
        return super().forward(inputs)

Pull = Speaking
speak("imported")
atexit.register(speak, "gone")
"""


def check(folder: Path, *words: str, default: str = "0.0, ", reduce: str = "mean") -> Result:
    write(folder / "pull_file.py", default, reduce)
    return command(folder, *words)


def write(path: Path, default: str = "0.0, ", reduce: str = "mean") -> None:
    path.write_text(SOURCE.replace("{default}", default).replace("{reduce}", reduce))


def command(folder: Path, *words: str) -> Result:
    return run_process("-m", "pae_framework", "check-plugin", *words, cwd=folder, timeout=600)


def states(plugin: dict[str, Any], subject: str) -> dict[str, str]:
    return {outcome["test"]: outcome["state"] for outcome in plugin["tests"][subject]}


@pytest.mark.slow
def test_a_correct_file_passes_from_any_folder_and_its_weight_is_named(tmp_path):
    """Printing, also from C, spoils nothing, nor does a module here named like another."""
    write(tmp_path / "pull_file.py")
    with (tmp_path / "pull_file.py").open("a") as file:
        file.write(PRINTS)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "yaml.py").write_text("raise ValueError('not this one')")
    words = ("-m", "pae_framework", "check-plugin", "../pull_file.py", "--json")
    done = run_process("-P", *words, cwd=tmp_path / "elsewhere", timeout=600).ok()
    for moment in ("imported", "in forward", "gone"):
        assert moment in done.err
        assert f"C: {moment}" in done.err
    assert done.json["schema"] == "check-plugin/1"
    (found,) = done.json["plugins"]
    assert found["failed"] == 0
    assert found["plugin"]["heavy"] is True
    assert found["registration"]["torch"]  # one file that holds the component, too, imports torch
    assert found["registration"]["seconds"] > 0
    assert found["registration"]["modules"] > 0
    (registration,) = found["tests"]["registration"]
    assert registration["state"] == "ok"
    assert "heavy" in registration["message"]
    tests = states(found, "regularizer:pull")
    assert {state for test, state in tests.items() if test != "gpu"} == {"ok"}
    assert {"contract", "nan", "other_process", "compile", "meta_device"} <= tests.keys()


def test_a_broken_file_fails_with_the_contract_at_the_chosen_size_and_exit_code_3(tmp_path):
    failed = check(tmp_path, "pull_file.py", "--grid=7", reduce="sum").fails(3)
    assert "mean over images" in failed.out
    assert "7 x 7" in failed.out
    assert "regularizer:pull" in failed.out


@pytest.mark.slow
def test_required_parameters_are_asked_for_and_given(tmp_path):
    asked = check(tmp_path, "pull_file.py", default="").fails(3)
    assert "regularizer:pull.value" in asked.out
    given = check(tmp_path, "pull_file.py", "regularizer:pull.value=2", "--json", default="").ok()
    (found,) = given.json["plugins"]
    assert found["failed"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["no-such-distribution"], "pae-framework"),
        (["nowhere.py"], "nowhere.py"),
        (["pull_file.py", "regularizer:push.value=2"], "regularizer:pull"),
        (["pae-framework", "dataset:shape.count=2"], "dataset:shapes"),
        (["pull_file.py", "value=2"], "KIND:NAME"),
        (["pull_file.py", "regularizer:pull.value=["], "YAML"),
    ],
)
def test_wrong_usage_is_named(words, fact, tmp_path):
    failed = check(tmp_path, *words).fails(2)
    assert fact in failed.err
    assert failed.out == ""


HOOK = """
from pae_framework import hookimpl
pae_api = 1
@hookimpl
def pae_register_evaluators(register):
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "fact"),
    [
        ("raise ValueError('inside')", "inside"),
        ("pae_api = 1", "no hook"),
        (HOOK + "    pass", "registers nothing"),
        (
            HOOK + "    register('one', target='json:dumps', config='json:loads', summary='s')",
            "json",
        ),
    ],
    ids=["does not load", "no hook", "registers nothing", "no config"],
)
def test_a_file_that_registers_no_component_fails_with_a_report(source, fact, tmp_path):
    (tmp_path / "other_file.py").write_text(source)
    failed = command(tmp_path, "other_file.py", "--json").fails(3)
    (registration,) = failed.json["plugins"][0]["tests"]["registration"]
    assert registration["state"] == "failed"
    assert fact in registration["message"]


ENDING = '''
import os, signal, sys
from pae_framework import hookimpl
from pae_framework.config import EvaluatorConfig
from pae_framework.contracts import Evaluator

pae_api = 1

class EndConfig(EvaluatorConfig):
    """No parameters."""

class End(Evaluator):
    def evaluate(self, inputs, directory):
        print("evaluating", flush=True)
        {end}

@hookimpl
def pae_register_evaluators(register):
    register("end", target=__name__ + ":End", config=__name__ + ":EndConfig", summary="ends")
'''


@pytest.mark.slow
@pytest.mark.parametrize("end", ["sys.exit(0)", "raise GeneratorExit"])
def test_a_component_that_exits_fails_its_test(end, tmp_path):
    (tmp_path / "end_file.py").write_text(ENDING.format(end=end))
    failed = command(tmp_path, "end_file.py", "--json").fails(3)
    (found,) = failed.json["plugins"]
    assert states(found, "evaluator:end")["contract"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize(
    "end", ["os._exit(0)", "os._exit(2)", "os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_a_component_that_ends_the_process_at_once_fails(end, tmp_path):
    (tmp_path / "end_file.py").write_text(ENDING.format(end=end))
    failed = command(tmp_path, "end_file.py").fails(3)
    assert "end_file.py" in failed.err
    assert "evaluating" in failed.err
    assert failed.out == ""


THREAD = "threading.Thread(target=time.sleep, args=(1000,), name='reader').start()"


@pytest.mark.slow
def test_an_interrupt_of_a_component_ends_the_tests_without_a_traceback(tmp_path):
    (tmp_path / "end_file.py").write_text(
        ENDING.format(end=f"import threading, time; {THREAD}; raise KeyboardInterrupt")
    )
    failed = command(tmp_path, "end_file.py").fails(3)
    assert "exit code 130" in failed.err
    assert "Traceback" not in failed.err


@pytest.mark.slow
def test_a_thread_that_would_keep_the_process_alive_fails(tmp_path):
    """One that ends in time, a daemon, or an idle thread of a pool does not."""
    lines = [
        "import concurrent.futures, threading, time",
        THREAD,
        "threading.Thread(target=time.sleep, args=(1000,), name='helper', daemon=True).start()",
        "threading.Thread(target=time.sleep, args=(0.1,), name='brief').start()",
        "pools = [concurrent.futures.ThreadPoolExecutor(1, name) for name in ('idle', 'busy')]",
        "pools[0].submit(print).result()",
        "pools[1].submit(time.sleep, 1000)",
    ]
    (tmp_path / "end_file.py").write_text(ENDING.format(end="; ".join(lines)))
    failed = command(tmp_path, "end_file.py", "--json").fails(3)
    (found,) = failed.json["plugins"]
    outcomes = [o for o in found["tests"]["evaluator:end"] if o["test"] == "threads"]
    assert [o["state"] for o in outcomes] == ["failed", "failed"]
    for outcome, name in zip(outcomes, ("'reader'", "'busy_0'"), strict=True):
        assert name in outcome["message"]
        assert "daemon" in outcome["message"]


@pytest.mark.slow
def test_an_installed_distribution_is_checked_by_its_name(tmp_path):
    done = check(tmp_path, "pae-bottlenecks", "--json").ok()
    (found,) = done.json["plugins"]
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


def test_a_folder_of_a_plugin_that_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "my-tok").mkdir()
    (tmp_path / "my-tok" / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="pip install -e my-tok"):
        _chosen("my-tok")

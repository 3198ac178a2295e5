"""What the plugin registers, and that registering needs no torch."""

import importlib
import subprocess
import sys

import pytest

import pae_evaluators
from pae_framework.config import EVALUATION_NEEDS, EvaluatorConfig
from pae_framework.contracts import Evaluator


def registered():
    found = {}
    pae_evaluators.pae_register_evaluators(
        register=lambda name, **strings: found.update({name: strings})
    )
    return found


def resolve(string):
    module, _, attribute = string.partition(":")
    return getattr(importlib.import_module(module), attribute)


def test_the_evaluators():
    assert set(registered()) == {"reconstruction", "generation", "few_steps", "manifold"}


@pytest.mark.parametrize("name", registered())
def test_import_strings_lead_to_an_evaluator_and_its_config(name):
    strings = registered()[name]
    config = resolve(strings["config"])
    assert issubclass(config, EvaluatorConfig)
    assert issubclass(resolve(strings["target"]), Evaluator)
    assert config().needs <= EVALUATION_NEEDS


def test_registering_and_configs_import_no_torch():
    code = "import sys, pae_evaluators, pae_evaluators.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

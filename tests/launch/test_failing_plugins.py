"""An exception in the code of a plugin names the plugin, and the place in its code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pae_framework.build import build_regularizers
from pae_framework.config import RegularizerConfig
from pae_framework.contracts import Regularizer
from pae_framework.errors import PluginError
from pae_framework.launch.stage import _place_in_plugin
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import ComponentSpec, Plugin, Registry

PLUGIN = Plugin("acme", "acme", "acme-terms", "1")


def function(module: str, body: str) -> Callable[..., Any]:
    """A function ``f(x)`` of a module, whose body is line 2 of a file."""
    names: dict[str, Any] = {"__name__": module, "torch": torch}
    exec(compile(f"def f(x):\n    {body}\n", f"{module}.py", "exec"), names)
    return names["f"]


def place(call: Callable[[], Any]) -> str | None:
    registry = load_registry()
    registry.add(ComponentSpec("regularizer", "term", "acme.terms:Term", "a:b", "", PLUGIN))
    try:
        call()
    except Exception as error:
        return _place_in_plugin(error, registry)
    raise AssertionError("no error")


FAULTY = function("acme.inner.module", "return x.missing")
FAULTY_OP = function("acme.terms", "return torch.ones(2) @ torch.ones(3)")
CALLING = function("acme.terms", "return x()")
OF_ENGINE = function("pae_framework.somewhere", "return x()")
OF_BUILT_IN = function("pae_regularizers.somewhere", "return x()")
OF_LIBRARY = function("library", "return x()")


def fail() -> None:
    raise ValueError("it")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: FAULTY(None), "acme.inner.module.py:2"),
        (lambda: OF_ENGINE(lambda: FAULTY(None)), "acme.inner.module.py:2"),
        (lambda: FAULTY_OP(None), "acme.terms.py:2"),  # raised by torch, which it called
        (lambda: CALLING(lambda: OF_LIBRARY(fail)), "acme.terms.py:2"),
        (lambda: CALLING(lambda: OF_ENGINE(fail)), None),
        (lambda: CALLING(lambda: OF_BUILT_IN(fail)), None),
        (lambda: OF_LIBRARY(fail), None),
    ],
)
def test_the_place_is_the_innermost_code_of_a_package_with_components(
    call: Callable[[], Any], expected: str | None
) -> None:
    found = place(call)
    assert found == (None if expected is None else f"plugin acme (acme-terms), {expected}")


class Term(Regularizer):
    def forward(self, inputs: Any) -> torch.Tensor:
        return torch.zeros(())


class WithoutConfig(Term):
    """Its author forgot the argument."""

    def __init__(self) -> None:
        super().__init__(RegularizerConfig())


class Raising(Term):
    def __init__(self, config: RegularizerConfig) -> None:
        raise KeyError("size")


@pytest.mark.parametrize(("name", "fact"), [("WithoutConfig", "TypeError"), ("Raising", "size")])
def test_a_component_that_cannot_be_built_is_named(name: str, fact: str) -> None:
    registry: Registry = load_registry()
    target, config = f"{__name__}:{name}", "pae_framework.config:RegularizerConfig"
    registry.add(ComponentSpec("regularizer", "faulty", target, config, "", PLUGIN))
    section = load_recipe(
        "quickstart", ["tokenizer.regularizers={faulty: {}}"], registry
    ).recipe.tokenizer
    tokenizer: Any = type("T", (), {"encoder": type("E", (), {"width": 8}), "latent": None})
    section = section.model_copy(update={"target": "raw"})
    with pytest.raises(PluginError) as caught:
        build_regularizers(section, registry, tokenizer)
    for part in ("acme-terms", "regularizer:faulty", fact):
        assert part in str(caught.value)

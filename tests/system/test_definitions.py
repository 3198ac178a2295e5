"""Names that a module cannot define are found without importing it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pae_framework.system.definitions import undefined

SOURCE = """
raise RuntimeError("imported")
import torch.nn as nn
from os import path as renamed, sep
try:
    from a import Guarded
except ImportError:
    Guarded = None
if True:
    class InBlock: pass
else:
    def in_else(): pass
for looped in (1, 2):
    pass
with open("x") as opened:
    pass
annotated: int = 3
first, (second, *rest) = 1, (2, 3)
async def coroutine(): pass
class Encoder:
    inner = 1
    def method(self): local = 1
(walrus := 3)
"""
DEFINED = [
    *("nn", "renamed", "sep", "Guarded", "InBlock", "in_else", "looped", "opened", "annotated"),
    *("first", "second", "rest", "coroutine", "Encoder", "walrus"),
]


DYNAMIC = {
    "by_globals": "def make(name):\n    globals()[name] = 1\nmake('Made')",
    "by_exec": "def make():\n    exec('Made = 1', globals())\nmake()",
    "by_setattr": "import sys\ndef f():\n    setattr(sys.modules[__name__], 'Made', 1)\nf()",
    "in_method": "class A:\n    def m(self):\n        globals().update(Made=1)\nA().m()",
    "in_class": "class A:\n    globals()['Made'] = 1",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "package_of_definitions"
    folder = tmp_path / name
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text(SOURCE)
    (folder / "sub" / "__init__.py").write_text("raise RuntimeError\nclass Inside: pass")
    (folder / "sub" / "deep.py").write_text("raise RuntimeError\nclass Deep: pass")
    (folder / "space").mkdir()
    (folder / "space" / "module.py").write_text("class Spaced: pass")
    (folder / "compiled.so").touch()
    (folder / "broken.py").write_text("class (")
    (folder / "star.py").write_text("from os import *")
    (folder / "lazy.py").write_text("def __getattr__(name): return 1")
    for module, source in DYNAMIC.items():
        (folder / f"{module}.py").write_text(source)
    (folder / "global_name.py").write_text("def make():\n global Made\n Made = 1\nmake()")
    (folder / "usual.py").write_text("class A:\n def m(self): setattr(self, 'x', 1)")
    (folder / "dynamic.py").write_text("globals()['Made'] = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    assert not [module for module in sys.modules if module.startswith(name)]


@pytest.mark.parametrize("name", DEFINED)
def test_a_name_that_is_defined(name, package):
    assert undefined(f"{package}:{name}") is None


@pytest.mark.parametrize("name", ["Missing", "inner", "method", "local", "torch"])
def test_a_name_that_is_not_defined(name, package):
    assert repr(name) in undefined(f"{package}:{name}")


def test_a_similar_name_is_suggested(package):
    assert "did you mean 'Encoder'?" in undefined(f"{package}:Encodr")


@pytest.mark.parametrize("where", ["sub:Inside", "sub.deep:Deep", "space.module:Spaced"])
def test_modules_are_found_at_any_depth(where, package):
    assert undefined(f"{package}.{where}") is None
    assert undefined(f"{package}.{where}x") is not None


@pytest.mark.parametrize("where", ["missing:X", "sub.missing:X", "missing.deep:X"])
def test_a_module_that_does_not_exist_is_named(where, package):
    assert f"{package}.{where.partition(':')[0].removesuffix('.deep')}" in undefined(
        f"{package}.{where}"
    )
    assert "no_such_package" in undefined("no_such_package.module:X")


@pytest.mark.parametrize("where", ["compiled", "broken", "star", "lazy", "dynamic", *DYNAMIC])
def test_what_only_running_it_shows_may_exist(where, package):
    assert undefined(f"{package}.{where}:Anything") is None


def test_a_global_statement_defines_its_names_only(package):
    assert undefined(f"{package}.global_name:Made") is None
    assert undefined(f"{package}.global_name:Missing") is not None


def test_attributes_of_objects_are_no_names_of_the_module(package):
    assert undefined(f"{package}.usual:Missing") is not None


@pytest.mark.parametrize("reference", ["sys:X", "math:X", "torch:Tensor", "json:loads"])
def test_modules_of_others_may_be_anything(reference):
    undefined(reference)  # does not raise
    assert undefined("json:loads") is None

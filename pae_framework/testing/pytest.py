"""Pytest fixtures for plugin authors.

- ``pae`` runs one command in an empty folder, the test's ``tmp_path``.
- ``with_plugin(module)`` makes a module or file a plugin during one test.
- ``tiny_source``, ``tiny_batch``, ``tiny_encoder`` and ``tiny_tokenizer`` are small and fast.

Import them in the ``conftest.py`` of your tests, then use ``pae``::

    from pae_framework.testing.pytest import *


    def test_a_recipe_may_use_my_term(pae):
        term = "tokenizer.regularizers.neighbors"
        assert pae("check", "quickstart", f"{term}.weight=0.1").ok().out == "quickstart: valid\\n"
        assert term in pae("check", "quickstart", f"{term}.weight=-1").fails(2).err
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pae_framework.hookspecs import PROJECT

if TYPE_CHECKING:
    from torch import Tensor

    from pae_framework.contracts import DataSource, Encoder
    from pae_framework.registry import Registry
    from pae_framework.tokenizer.model import ComposedTokenizer

__all__ = [
    "Pae",
    "Result",
    "pae",
    "run_process",
    "tiny_batch",
    "tiny_encoder",
    "tiny_source",
    "tiny_tokenizer",
    "with_plugin",
]


@dataclass(frozen=True)
class Result:
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The standard output, parsed."""
        return json.loads(self.out)

    def ok(self) -> Result:
        """This result.

        Raises:
            AssertionError: the exit code is not 0, or there is a traceback.
        """
        return self.fails(0)

    def fails(self, code: int) -> Result:
        """This result.

        Raises:
            AssertionError: the exit code is not ``code``, or there is a traceback.
        """
        report = f"exit code {self.code}, expected {code}\n{self.out}{self.err}"
        assert self.code == code, report
        assert "Traceback" not in self.err, report
        return self


Pae = Callable[..., Result]
"""The fixture: takes the words of a command line, without ``pae``."""


@pytest.fixture
def pae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pae:
    """Run one command in this process, in an empty folder: the test's ``tmp_path``."""
    from pae_framework.cli.app import main

    monkeypatch.chdir(tmp_path)

    def pae(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["pae", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        else:
            code = 0
        return Result(code, *capsys.readouterr())

    return pae


@pytest.fixture
def with_plugin(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[ModuleType | str | Path], Registry]]:
    """Make a module, by itself or by its import name, or a file a plugin during one test.

    Commands in this process and :func:`~pae_framework.plugins.load_registry` find it. The registry
    with it is returned.

    Raises (on a call):
        AssertionError: it does not load; says why.
    """
    from pae_framework import plugins
    from pae_framework.file_plugins import import_file

    files: list[str] = []

    def with_plugin(module: ModuleType | str | Path) -> Registry:
        found = list(plugins.installed_points())
        if isinstance(module, Path):
            import_file(module)
            module = module.stem
            files.append(module)
        name = module if isinstance(module, str) else module.__name__
        found.append(EntryPoint(name, name, PROJECT))
        monkeypatch.setattr(plugins, "installed_points", lambda registry=None: iter(found))
        registry = plugins.load_registry()
        broken = [f"{p.name}: {p.error}" for p in registry.broken if p.name == name]
        assert not broken, broken[0]
        return registry

    yield with_plugin
    for name in files:
        sys.modules.pop(name, None)


@pytest.fixture
def tiny_source() -> DataSource:
    """20 generated images of 16 px with labels and masks: the data source ``shapes``."""
    from pae_framework.plugins import load_registry

    spec = load_registry().find("dataset", "shapes")
    source: DataSource = spec.component_class()(
        spec.config_class().model_validate({"count": 20}), 16
    )
    return source


@pytest.fixture
def tiny_batch(tiny_source: DataSource) -> tuple[Tensor, Tensor]:
    """Images (4, 3, 16, 16) in [0, 1] and labels (4,) of ``tiny_source``."""
    import torch

    items = [tiny_source[index] for index in range(4)]
    images = torch.stack([item.image for item in items]).float() / 255
    return images, torch.tensor([item.label for item in items])


@pytest.fixture
def tiny_encoder() -> Encoder:
    """A frozen encoder with random weights for images of 16 px: 4 x 4 tokens of width 24."""
    from pae_framework.testing.kind_contracts import tiny_encoder

    return tiny_encoder(16)


@pytest.fixture
def tiny_tokenizer() -> ComposedTokenizer:
    """The quickstart's tokenizer for images of 16 px, small, with random weights, in eval mode."""
    from pae_framework.build import build_encoder, build_tokenizer
    from pae_framework.recipe.load import load_recipe
    from pae_framework.seeding import seeded

    small = ["encoder.width=24", "encoder.depth=2", "decoder.width=24", "decoder.depth=1"]
    changes = ["data.image_size=16", *(f"tokenizer.{change}" for change in small)]
    loaded = load_recipe("quickstart", changes)
    section, registry = loaded.recipe.tokenizer_section, loaded.registry
    with seeded("tiny tokenizer"):
        encoder = build_encoder(section.encoder, 16, registry)
        tokenizer = build_tokenizer(section, 16, registry, encoder)
    return tokenizer.eval()


def run_process(
    *arguments: str | Path,
    cwd: Path,
    timeout: float = 60,
    python: str | None = None,
    **options: Any,
) -> Result:
    """Run Python in a new process, in the folder ``cwd``.

    Args:
        *arguments: What follows ``python``; ``"-m", "pae_framework", ...`` is the command line.
        cwd: The working directory.
        timeout: Seconds after which the process is killed.
        python: The interpreter; default: that of this process.
        **options: Passed to :func:`subprocess.run`, such as ``env``.
    """
    done = subprocess.run(
        [python or sys.executable, *map(str, arguments)],
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    return Result(done.returncode, done.stdout, done.stderr)

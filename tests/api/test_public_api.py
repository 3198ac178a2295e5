"""The names and signatures that plugins use change only on purpose."""

from __future__ import annotations

import difflib
import re
import sys

import pytest
from public_api import FILE, MODULES, UNCOMPARED, _signature, public_api

from pae_framework import testing
from pae_framework.kinds import KINDS
from pae_framework.testing.pytest import run_process


def test_the_public_api_is_the_recorded_one() -> None:
    """A plugin of the same `pae_api` must go on working: add names, never remove or rename them."""
    recorded = FILE.read_text(encoding="utf-8").splitlines()
    changed = [
        line
        for line in difflib.unified_diff(recorded, public_api(), n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]
    assert changed == [], "look at it, then run `python tests/api/public_api.py`"


def test_the_record_does_not_depend_on_the_process() -> None:
    code = "import public_api; print(*public_api.public_api(), sep='\\n')"
    assert (
        run_process("-c", code, cwd=FILE.parent, timeout=600).ok().out.splitlines() == public_api()
    )
    assert not re.search(r" at 0x[0-9a-f]+", FILE.read_text(encoding="utf-8"))


def test_the_record_does_not_depend_on_the_machine() -> None:
    recorded = FILE.read_text(encoding="utf-8")
    for place in (sys.prefix, sys.executable, str(FILE.parents[2])):
        assert place not in recorded
    assert not re.search(r"['\"](/|[A-Z]:\\)", recorded), "an absolute path"


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_what_an_author_subclasses_is_part_of_it(kind) -> None:
    lines = "\n".join(public_api())
    contract = testing.CONTRACTS[kind.name].__name__
    for name in (f"config.{kind.config}", f"contracts.{kind.contract}", f"testing.{contract}"):
        assert f"pae_framework.{name}(" in lines
    assert f"pae_framework.hookspecs.{kind.hook}(register)" in lines


def test_a_changed_argument_changes_a_line() -> None:
    def before(a, *, b=1): ...
    def renamed(a, *, c=1): ...
    def required(a, *, b): ...
    def added(a, d, *, b=1): ...

    signatures = {_signature(function) for function in (before, renamed, required, added)}
    assert len(signatures) == 4


def test_the_docs_name_the_compared_modules_and_the_others() -> None:
    page = (FILE.parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    section = page.partition("## What a plugin may import")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`([a-z_.]+)`", section)) - {"pae_framework"}
    compared = {module.split(".")[1] for module in MODULES[1:-1]}
    assert documented == compared | set(UNCOMPARED)
    (left_out,) = re.findall(r"public_api\.txt`\).*?\n- ", page, re.DOTALL)
    assert set(re.findall(r"`([a-z_.]+)`", left_out)) == set(UNCOMPARED)

"""A finished run and a chain to interrupt, which tests share; each works on a run of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from finished_run import QUICK, Finished, answer
from interrupted_chain import RECIPE, Chain
from interrupter import Interrupter, Interruption


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    expected = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in QUICK:
            result, expected[name] = answer(name, folder, monkeypatch)
            result.ok()
            shutil.rmtree(folder / "out")
    return Finished(folder, expected)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("interrupted")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    command = ("run", str(folder / "recipe.yaml"))
    with Interrupter(folder) as interrupter:
        ended = interrupter.run(folder / "undisturbed", Interruption(), *command)
        assert ended.code == 0, ended.output
        yield Chain(folder, interrupter, folder / "undisturbed", ended.operations, command)

"""A finished run and a chain to interrupt, which tests share; each works on a run of its own."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator

import pytest
from finished_run import QUICK, Finished, answer
from interrupted_chain import RECIPE, Chain
from interrupter import Interrupter, Interruption

from pae_framework.system.stopping import STOP_SIGNALS


@pytest.fixture(autouse=True)
def _reports_are_quick(empty_plots: None) -> None:
    pass


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A job leaves signals ignored, because its process is about to end."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    expected = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("pae_framework.report.plots._svg", lambda figure: "<svg/>")
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

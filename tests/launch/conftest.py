"""A finished run that tests share; each works on a copy of its own."""

from __future__ import annotations

import shutil

import pytest
from finished_run import QUICK, Finished, answer


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

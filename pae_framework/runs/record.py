"""The record of one stage: its state, progress and times, in ``stage.json``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pae_framework.errors import StoppedError, WriteError
from pae_framework.files import read_json, write_json
from pae_framework.runs.locks import holding, is_held


class UpdateRecord(Protocol):
    """Updates values and the working time in a stage's record."""

    def __call__(self, **values: Any) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class StageRecord:
    """The record in one stage's folder.

    States: ``pending``, ``running``, ``stopped`` (on request, or killed), ``failed``, ``done``.
    """

    path: Path

    @property
    def file(self) -> Path:
        """The JSON file with the state."""
        return self.path / "stage.json"

    @property
    def info(self) -> dict[str, Any]:
        """Contents of the record; empty before the stage starts."""
        return dict(read_json(self.file)) if self.file.is_file() else {}

    @property
    def state(self) -> str:
        """The recorded state; ``stopped`` if it says ``running`` but no process holds the stage."""
        state = str(self.info.get("state", "pending"))
        return "stopped" if state == "running" and not is_held(self.path) else state

    @property
    def done(self) -> bool:
        """Whether the stage finished."""
        return self.info.get("state") == "done"

    def update(self, **values: Any) -> None:
        """Set some of the recorded values."""
        write_json(self.file, {**self.info, **values})

    @contextmanager
    def working(self, inputs: dict[str, str]) -> Iterator[UpdateRecord]:
        """Record the stage as running, then as done, stopped, or failed with the reason.

        Yields a function that records progress and the working time, summed over interruptions.
        """
        before = self.info
        self.update(
            stage=self.path.name.rpartition("-")[0],
            fingerprint=self.path.name.rpartition("-")[2],
            inputs=inputs,
            state="running",
            started=before.get("started", _now()),
            error=None,
        )
        spent, start = float(before.get("seconds", 0.0)), time.monotonic()

        def update_record(**values: Any) -> None:
            self.update(seconds=round(spent + time.monotonic() - start, 3), **values)

        try:
            yield update_record
        except (StoppedError, KeyboardInterrupt):
            update_record(state="stopped")
            raise
        except BaseException as error:
            with suppress(WriteError):  # the disk may be full; `error` says so
                update_record(state="failed", error=str(error) or type(error).__name__)
            raise
        update_record(state="done", finished=_now())

    @contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the stage; if another process of the sweep holds it, call ``waiting`` and wait."""
        with holding(self.path, waiting):
            yield


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")

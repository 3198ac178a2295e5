"""The record of one stage: its state, progress and times, in ``stage.json``."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from pae_framework.errors import RunError, StoppedError, WriteError
from pae_framework.runs.locks import LOCK_FILES, holding, is_held
from pae_framework.runs.markers import Waiting
from pae_framework.runs.reading import read_record
from pae_framework.runs.results import ResultFile, Results, describe_results
from pae_framework.system.files import clear_unfinished, json_digest, write_json

_REMEDY = (
    "remove this file, and `pae run` continues the stage from its last checkpoint; or run the "
    "stage from its beginning with --again"
)


_OF_A_COMMAND = ("started", "command", "overrides", "sources")
"""What ``ran_with`` says of a command, not of its environment."""
_DIGEST = "digest"
"""Key of the digest of all other values."""


class _Progress(BaseModel):
    done: int
    total: int


class _Process(BaseModel):
    host: str
    id: int
    since: str


class _Evaluator(BaseModel):
    fingerprint: str
    files: dict[str, ResultFile]
    environment: dict[str, Any] = {}


class _Record(BaseModel):
    """The shape of ``stage.json``, as far as it is read."""

    state: Literal["pending", "running", "stopped", "failed", "done"]
    inputs: dict[str, str] = {}
    started: str = ""
    error: str | None = None
    seconds: float = 0.0
    progress: _Progress | None = None
    weights: str = ""
    data_digest: str = ""
    results: dict[str, ResultFile] = {}
    ran_with: list[dict[str, Any]] = []
    hashed: dict[str, Any] = {}
    process: _Process | None = None
    continued_from: dict[str, Any] = {}
    evaluators: dict[str, _Evaluator] = {}


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
        """Contents of the record, without its own digest; empty before the stage starts.

        A record without a digest is that of an earlier version, which recorded no results.

        Raises:
            RunError: the file is damaged.
        """
        if not os.path.lexists(self.file):
            return {}
        content = dict(read_record(self.file, _Record, _REMEDY))
        digest = content.pop(_DIGEST, None)
        if digest is None:
            content.pop("results", None)
        elif digest != json_digest(content):
            raise RunError(
                f"{self.file} is damaged: its content does not have its digest; {_REMEDY}"
            )
        return content

    @property
    def state(self) -> str:
        """The recorded state; ``stopped`` if it says ``running`` but no process holds the stage."""
        state = str(self.info.get("state", "pending"))
        return "stopped" if state == "running" and not is_held(self.path) else state

    @property
    def started(self) -> str:
        """Local time when the stage began, in ISO 8601; the present time if it did not yet."""
        return str(self.info.get("started") or _now())

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Software and machine of each command that worked on the stage, the last one at the end.

        Empty if an earlier version recorded none.
        """
        info = self.info
        *earlier, last = info.get("ran_with") or [None]
        if last is None:
            return []
        return [
            {key: value for key, value in entry.items() if key not in _OF_A_COMMAND}
            for entry in (*earlier, {**last, **info.get("machine", {})})
        ]

    @property
    def lacks_results(self) -> bool:
        """Whether an earlier version finished the stage, which recorded no results."""
        return self.done and "results" not in self.info

    @property
    def total(self) -> int | None:
        """Number of steps or items of the stage; None if unknown."""
        progress = self.info.get("progress")
        return progress["total"] if progress else None

    @property
    def done(self) -> bool:
        """Whether the stage finished."""
        return self.info.get("state") == "done"

    def update(self, **values: Any) -> None:
        """Set some of the recorded values."""
        self._write({**self.info, **values})

    def _write(self, content: dict[str, Any]) -> None:
        write_json(self.file, {**content, _DIGEST: json_digest(content)})

    @contextmanager
    def working(
        self,
        inputs: dict[str, str],
        ran_with: Mapping[str, Any] | None = None,
        hashed: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Iterator[UpdateRecord]:
        """Record the stage as running, then as done, stopped, or failed with the reason.

        Yields a function that records progress and the working time, summed over interruptions.
        The record of a stage that is done lists its results.

        Args:
            inputs: fingerprints of the stages that this one reads.
            ran_with: the command, software and machine, which are added to those that worked on
                the stage before, unless they are the same as the last.
            hashed: what the stage's fingerprint is the hash of.
            more: values that are recorded together with the state.
        """
        before = self.info
        self.update(
            stage=self.path.name.rpartition("-")[0],
            fingerprint=self.path.name.rpartition("-")[2],
            inputs=inputs,
            state="running",
            error=None,
            process={"host": platform.node(), "id": os.getpid(), "since": _now()},
            hashed=hashed or {},
            ran_with=_with_last(before.get("ran_with", []), ran_with),
            **{"started": self.started, **(more or {})},
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
        update_record(state="done", finished=_now(), results=describe_results(self.path))

    def adopt_results(self) -> bool:
        """Record the results of a stage that an earlier version finished.

        Returns whether they were recorded now: not if the folder is read-only.
        """
        if not self.lacks_results or not os.access(self.path, os.W_OK):
            return False
        self.renew_results()
        return True

    def adopt_hashed(self, hashed: Mapping[str, Any]) -> None:
        """Record what the fingerprint is the hash of, unless the folder is read-only."""
        if os.access(self.path, os.W_OK):
            with suppress(WriteError):  # it only explains
                self.update(hashed=hashed)

    def keep_times(self, results: Results) -> None:
        """Record the present times of results that were found complete, unless it is read-only.

        The files of a copied run are then read only once.
        """
        if results != self.info.get("results", {}) and os.access(self.path, os.W_OK):
            with suppress(WriteError):  # it only saves time
                self.update(results=results)

    def renew_results(self) -> None:
        """Record the results of a finished stage again, after a command rewrote them."""
        if self.done:
            self.update(results=describe_results(self.path))

    def outdate(self) -> None:
        """Mark the stage as not begun: :meth:`prepare` then removes what it left."""
        self._write({"state": "pending"})

    def prepare(self) -> None:
        """Remove what the stage must not start with, under its lock.

        That is: temporary files of processes that were killed, and everything if the stage is
        marked as not begun.
        """
        clear_unfinished(self.path)
        if self.info.get("state") != "pending":
            return
        for path in self.path.iterdir():
            if path == self.file or path.name in LOCK_FILES:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        self.file.unlink()  # last: until then, a killed process leaves the mark

    @contextmanager
    def lock(self, waiting: Waiting | None) -> Iterator[None]:
        """Hold the stage; arguments and errors as of :func:`~pae_framework.runs.locks.holding`."""
        with holding(self.path, waiting):
            yield


def _with_last(
    earlier: list[dict[str, Any]], last: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """What worked on a stage, with the last; each entry says when it started."""
    if last is None:
        return earlier
    if earlier and {**earlier[-1], "started": None} == {"started": None, **last}:
        return earlier
    return [*earlier, {"started": _now(), **last}]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")

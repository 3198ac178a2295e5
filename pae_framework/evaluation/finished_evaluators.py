"""Evaluators have fingerprints of their own: their results are taken over from other stages.

The record of a stage ``evaluate`` lists the evaluators that are done, each with its fingerprint and
the sizes and digests of its files, also if the stage itself was stopped or failed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pae_framework.errors import PaeError, RunError
from pae_framework.execution.context import StageContext
from pae_framework.runs.record import StageRecord
from pae_framework.runs.results import StageResults, describe_results
from pae_framework.system.files import json_digest, make_folder, replacing

METRICS = "metrics.json"
"""File of an evaluator's metrics in its folder; it is written when all others are there."""
EVALUATORS = "evaluators"
"""Key of the record."""


class FinishedEvaluators:
    """The evaluators of a stage that are done, in this or in another folder of the store.

    Args:
        context: of the stage.
    """

    def __init__(self, context: StageContext):
        self._context = context

    def folder(self, label: str) -> Path:
        """Folder of the evaluator with a label."""
        return self._context.directory / label

    def fingerprint(self, label: str) -> str:
        """Hash of everything that the results of an evaluator depend on, but not of its label.

        Other evaluators are no part of it, nor are training images unless it needs them.
        """
        hashed, evaluator = self._context.planned.hashed, self._context.recipe.evaluate[label]
        ignored = {"evaluate"}
        if "training_images" not in evaluator.config.needs:
            ignored.add("train_images")
        parts = {key: value for key, value in hashed["parts"].items() if key not in ignored}
        return json_digest(
            {**hashed, "parts": parts, "evaluator": hashed["parts"]["evaluate"][label]}
        )

    def record(self, label: str) -> None:
        """Record that an evaluator is done; its files are there."""
        entry = {
            "fingerprint": self.fingerprint(label),
            "files": describe_results(self.folder(label)),
        }
        done = _recorded(self._context.directory)
        self._context.update_record(**{EVALUATORS: {**done, label: entry}})

    def take_over(self, label: str) -> str | None:
        """Copy an evaluator's results from another folder, if they are there and did not change.

        Returns:
            Name of the folder of the stage; None if there is none.

        Raises:
            WriteError: they cannot be copied.
        """
        fingerprint = self.fingerprint(label)
        for folder, results in self._others(fingerprint):
            try:
                results.files()
            except (RunError, OSError):
                continue
            self._copy(results, label)
            self.record(label)
            return folder.name
        return None

    def _others(self, fingerprint: str) -> Iterator[tuple[Path, StageResults]]:
        own = self._context.directory
        for folder in sorted(own.parent.glob("evaluate-*")):
            for label, entry in _recorded(folder).items() if folder != own else ():
                if entry["fingerprint"] == fingerprint and METRICS in entry["files"]:
                    yield folder, StageResults(folder / label, entry["files"], "")

    def _copy(self, results: StageResults, label: str) -> None:
        files = results.recorded or {}
        for name in sorted(files, key=lambda name: name == METRICS):  # it comes last
            path = self.folder(label) / name
            make_folder(path.parent)
            with replacing(path, files[name]["size"]) as temporary:
                shutil.copyfile(results.folder / name, temporary)


def _recorded(folder: Path) -> Mapping[str, Any]:
    """The evaluators in the record of a folder that are done; none if it is damaged."""
    try:
        recorded: Mapping[str, Any] = StageRecord(folder).info.get(EVALUATORS, {})
    except (PaeError, OSError):
        return {}
    return recorded

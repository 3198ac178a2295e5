"""Evaluators have fingerprints of their own: their results are taken over from other stages.

The record of a stage ``evaluate`` lists the evaluators that are done, each with its fingerprint and
the sizes and digests of its files, also if the stage itself was stopped or failed.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pae_framework.errors import PaeError, RunError
from pae_framework.execution.context import StageContext
from pae_framework.recipe.models import Recipe
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.record import StageRecord
from pae_framework.runs.results import StageResults, describe_results
from pae_framework.runs.run_metrics import EVALUATOR_METRICS
from pae_framework.system.files import json_digest, make_folder, replacing

EVALUATORS = "evaluators"
"""Key of the record."""
_ONLY_FOR = {"train_images": "training_images", "latents": "train_latents"}
"""What the stage reads only if an evaluator has this need, which then cannot do without."""


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
        """See :func:`evaluator_fingerprint`."""
        return evaluator_fingerprint(self._context.planned, self._context.recipe, label)

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
                if entry["fingerprint"] == fingerprint and EVALUATOR_METRICS in entry["files"]:
                    yield folder, StageResults(folder / label, entry["files"], "")

    def _copy(self, results: StageResults, label: str) -> None:
        files = results.recorded or {}
        for name in sorted(files, key=lambda name: name == EVALUATOR_METRICS):  # it comes last
            path = self.folder(label) / name
            make_folder(path.parent)
            with replacing(path, files[name]["size"]) as temporary:
                shutil.copyfile(results.folder / name, temporary)


def evaluator_fingerprint(planned: PlannedStage, recipe: Recipe, label: str) -> str:
    """Hash of everything that the results of an evaluator depend on, but not of its label.

    Other evaluators are no part of it, nor is what the stage reads only for those.
    """
    hashed, needs = planned.hashed, recipe.evaluate[label].config.needs
    others = {key for key, need in _ONLY_FOR.items() if need not in needs} | {"evaluate"}
    return json_digest(
        {
            **hashed,
            **{key: _without(hashed[key], others) for key in ("parts", "inputs")},
            "evaluator": hashed["parts"]["evaluate"][label],
        }
    )


@dataclass(frozen=True)
class RecordedEvaluators:
    """Evaluators in the records of all stages of a store that have their results.

    Args:
        fingerprints: of the evaluators.
        store: folder of the stages.
    """

    fingerprints: frozenset[str]
    store: Path

    @classmethod
    def of(
        cls, planned: PlannedStage, recipe: Recipe, labels: Collection[str], store: Path
    ) -> RecordedEvaluators:
        """Those with some labels in the recipe that a stage ``evaluate`` is planned from."""
        found = (evaluator_fingerprint(planned, recipe, label) for label in labels)
        return cls(frozenset(found), store)

    def records(self) -> list[StageRecord]:
        """The records that list one of them."""
        folders = sorted(self.store.glob("evaluate-*"))
        return [StageRecord(x) for x in folders if _recorded(x) != self._others(x)]

    def forget(self, record: StageRecord) -> None:
        """Let no stage take over their results from one that has them; the caller holds its lock.

        The results stay.
        """
        record.update(**{EVALUATORS: self._others(record.path)})

    def _others(self, folder: Path) -> dict[str, Any]:
        return {
            label: entry
            for label, entry in _recorded(folder).items()
            if entry["fingerprint"] not in self.fingerprints
        }


def _without(values: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _recorded(folder: Path) -> Mapping[str, Any]:
    """The evaluators in the record of a folder that are done; none if it is damaged."""
    try:
        recorded: Mapping[str, Any] = StageRecord(folder).info.get(EVALUATORS, {})
    except (PaeError, OSError):
        return {}
    return recorded

"""Evaluate a finished run: the unfinished evaluators of its recipe, or chosen ones. No torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import RecipeError, UsageError
from pae_framework.launch.again import downstream_records
from pae_framework.launch.local import LocalLauncher, try_components
from pae_framework.launch.ranks import Ranks
from pae_framework.preflight.download import fetch_at_first_use
from pae_framework.preflight.image_checks import unusable_images
from pae_framework.preflight.requirements import low_memory, missing_requirements
from pae_framework.preflight.resources import lacking_resources
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.suggestions import suggestion
from pae_framework.registry import Registry
from pae_framework.runs.cards import Card, stage_card
from pae_framework.runs.directory import RESOLVED
from pae_framework.runs.looking import looking_once
from pae_framework.runs.opened import OpenedRun, open_run
from pae_framework.runs.plan import PlannedStage, upstream_stages
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord
from pae_framework.runs.run_metrics import EVALUATOR_METRICS
from pae_framework.system.console import PlainConsole

_STAGE, _REPORT = "evaluate", "report"


@dataclass(frozen=True)
class EvaluateOptions:
    """Which evaluators run.

    Args:
        only: labels of evaluators; empty: all of the recipe.
        again: whether they run anew although they are done.
        command: what the user typed, for the record.
    """

    only: tuple[str, ...] = ()
    again: bool = False
    command: str = "evaluate_run"


@looking_once()
def evaluate_run(
    path: Path,
    options: EvaluateOptions,
    registry: Registry,
    ranks: Ranks,
    console: PlainConsole,
    warn: Callable[[str], None],
) -> Card:
    """Run evaluators of a run whose other stages are done; returns the card of the chosen ones.

    The results are those of the run's stage ``evaluate``, and its report is written again. If the
    stage has other unfinished evaluators than the chosen ones, it stays unfinished: the results of
    the chosen ones are in a stage of their own, whose folder is printed. Nothing is removed before
    all that can be checked is.

    Args:
        path: the directory of a run, or of a member of a sweep.
        options: which evaluators run.
        registry: the installed plugins.
        ranks: the processes.
        console: shows progress.
        warn: called with each warning that this machine may not suffice.

    Raises:
        UsageError: there is no such run or evaluator, or an earlier stage is not done.
        RecipeError: this machine lacks something that an evaluator needs; lists everything.
        RunError: the evaluation failed, or another process works on it.
    """
    run = open_run(path, registry)
    chosen = _chosen(options.only, run)
    whole = _Evaluation.of(run, run.loaded)
    with run.directory.lock():
        unfinished = whole.unfinished
        others = [label for label in unfinished if label not in chosen]
        working = _Evaluation.of(run, _only(chosen, run)) if others else whole
        working.require_inputs()
        left = [label for label in chosen if options.again or label in unfinished]
        _require_able(left, working, options.again, ranks, console, warn)
        if options.again:
            _outdate(chosen, whole, working)
        working.run(options.command, ranks, console, [] if others else whole.readers())
        if others:
            console.print(
                f"the results are in {working.record.path}; the run has no results yet: "
                f"{', '.join(others)} not done; `pae evaluate {path}` finishes them"
            )
        return stage_card(
            run.directory, working.planned, chosen if options.only and not others else None
        )


def _chosen(only: Sequence[str], run: OpenedRun) -> list[str]:
    """The labels of the evaluators to run."""
    known, path = list(run.loaded.recipe.evaluate), run.directory.path
    if not known:
        raise UsageError(f"the recipe of {path} has no evaluators")
    for label in only:
        if label not in known:
            raise UsageError(
                f"--only {label}: the recipe of {path} has no such evaluator; "
                f"{suggestion(label, known)}"
            )
    return [label for label in known if label in only or not only]


def _only(labels: Collection[str], run: OpenedRun) -> LoadedRecipe:
    """The recipe of a run with some of its evaluators."""
    others = [label for label in run.loaded.recipe.evaluate if label not in labels]
    overrides = [f"evaluate.{label}=null" for label in others]
    return load_recipe(run.directory.path / RESOLVED, overrides, run.loaded.registry)


@dataclass(frozen=True)
class _Evaluation:
    """The stage ``evaluate`` of a run, with all or some of the recipe's evaluators."""

    opened: OpenedRun
    loaded: LoadedRecipe
    stages: dict[str, PlannedStage]

    @classmethod
    def of(cls, opened: OpenedRun, loaded: LoadedRecipe) -> _Evaluation:
        return cls(opened, loaded, planned_stages(loaded, opened.directory.store))

    @property
    def planned(self) -> PlannedStage:
        return self.stages[_STAGE]

    @property
    def record(self) -> StageRecord:
        return self.opened.directory.stage(self.planned)

    @property
    def unfinished(self) -> list[str]:
        """Labels of the evaluators that are not done."""
        if self.record.info.get("state", "pending") == "pending":
            return list(self.loaded.recipe.evaluate)
        folder = self.record.path
        return [
            label
            for label in self.loaded.recipe.evaluate
            if not self.record.done and not (folder / label / EVALUATOR_METRICS).is_file()
        ]

    def require_inputs(self) -> None:
        """Check that all stages that the evaluation depends on are done.

        Raises:
            UsageError: one is not, as the recipe is planned today.
        """
        path = self.opened.directory.path
        for name in upstream_stages(self.stages, _STAGE):
            if name != _STAGE and not self.opened.directory.stage(self.stages[name]).done:
                raise UsageError(
                    f"stage {name!r} of {path} is not done, so there is nothing to evaluate; "
                    f"`pae status {path}` says why, and "
                    f"`pae run {path / RESOLVED} --run-dir {path}` runs it"
                )

    def readers(self) -> list[str]:
        """The stage ``report``, if all else that it reads is done."""
        inputs = [self.stages[name] for name in self.stages[_REPORT].inputs if name != _STAGE]
        ready = all(self.opened.directory.stage(stage).done for stage in inputs)
        return [_REPORT] if ready else []

    def run(
        self, command: str, ranks: Ranks, console: PlainConsole, more: Sequence[str] = ()
    ) -> None:
        """Run the unfinished evaluators, and ``more`` stages after them."""
        launcher, chosen = LocalLauncher(console, ranks), [_STAGE, *more]
        launcher.run_stages(self.loaded, self.opened.directory, self.stages, chosen, command)


def _require_able(
    labels: Collection[str],
    working: _Evaluation,
    again: bool,
    ranks: Ranks,
    console: PlainConsole,
    warn: Callable[[str], None],
) -> None:
    """Check that this machine has what the evaluators to run need; download what is missing.

    Raises:
        RecipeError: it lacks something.
        PluginError, UsageError: a component cannot be imported, or an attention kernel cannot be
            used.
    """
    if not labels and working.record.done:
        return
    recipe = _only(labels, working.opened)
    recipes, store = [recipe], working.opened.directory.store
    anew = [_STAGE] if again else []
    missing = [
        *missing_requirements(recipes, store, again=anew, processes=ranks.size),
        *unusable_images(recipes),
        *lacking_resources(recipes, store, again=anew),
    ]
    if problems := fetch_at_first_use(recipes, missing, console.print):
        raise RecipeError(problems)
    for problem in low_memory(recipes, store, again=anew, processes=ranks.size):
        warn(str(problem))
    try_components(recipe, [_STAGE])


def _outdate(labels: Collection[str], whole: _Evaluation, working: _Evaluation) -> None:
    """Remove the results of evaluators, and mark what reads them as not begun.

    Args:
        labels: of the evaluators.
        whole: the run's evaluation.
        working: the one that runs them; it may be the same.

    Raises:
        RunError: another process works on one of the stages, and nothing is changed.
    """
    from pae_framework.evaluation.finished_evaluators import RecordedEvaluators  # loads torch

    store = whole.opened.directory.store
    own = {whole.record, working.record}
    reading = downstream_records([_STAGE], [whole.loaded, working.loaded], store)
    begun = [record for record in reading if record.path.is_dir()]
    recorded = RecordedEvaluators.of(whole.planned, whole.loaded.recipe, labels, store)
    others = recorded.records()
    with ExitStack() as held:
        for record in dict.fromkeys((*begun, *others)):
            held.enter_context(record.lock(waiting=None))
        for record in others:
            recorded.forget(record)
        for record in reversed(begun):  # readers first: an interruption must not leave them done
            if record not in own:
                record.outdate()
            elif record.info.get("state", "pending") != "pending":
                record.update(state="stopped")
                for label in labels:
                    shutil.rmtree(record.path / label, ignore_errors=True)

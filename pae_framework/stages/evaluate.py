"""Stage ``evaluate``: compute the metrics of every evaluator; write ``results.json``."""

from __future__ import annotations

from dataclasses import asdict

from pae_framework.build import build_evaluator
from pae_framework.contracts import Notes
from pae_framework.evaluation.finished_evaluators import FinishedEvaluators
from pae_framework.evaluation.inputs import RunInputs
from pae_framework.execution.context import StageContext
from pae_framework.execution.probe import require_metrics
from pae_framework.runs.run_metrics import (
    EVALUATOR_METRICS,
    EVALUATOR_NOTES,
    RESULTS,
    Metrics,
    read_metrics_file,
)
from pae_framework.system.files import make_folder, write_json


def run(context: StageContext) -> None:
    """Run every evaluator whose results are not there; after an interruption, the unfinished ones.

    Results of an evaluator with the same fingerprint are taken over from another folder of the
    stage, so adding or changing one runs only that one. The main process runs them. The others help
    with the networks that its inputs need.
    """
    inputs = RunInputs(context, world=context.world, store=context.run.store)
    if not context.world.is_main:
        inputs.serve()
        return
    evaluators = context.recipe.evaluate
    finished = FinishedEvaluators(context)
    metrics: Metrics = []
    with context.progress(len(evaluators)) as progress:
        for number, label in enumerate(evaluators):
            progress.update(number, label)
            results = finished.folder(label) / EVALUATOR_METRICS
            if not results.exists():
                if (folder := finished.take_over(label)) is not None:
                    context.console.print(f"{'':<10} {label} reused from {folder}")
                else:
                    _evaluate(context, label, inputs, finished)
            metrics += read_metrics_file(results)
        progress.update(len(evaluators))
    inputs.end()
    write_json(context.directory / RESULTS, metrics)


def _evaluate(
    context: StageContext, label: str, inputs: RunInputs, finished: FinishedEvaluators
) -> None:
    component, folder = context.recipe.evaluate[label], finished.folder(label)
    make_folder(folder)
    evaluator = build_evaluator(component, context.registry)
    found = evaluator.evaluate(inputs, folder)
    require_metrics(found, component, context.registry)
    (folder / EVALUATOR_NOTES).unlink(missing_ok=True)  # of an interrupted evaluation
    if evaluator.notes != Notes():
        write_json(folder / EVALUATOR_NOTES, asdict(evaluator.notes))
    write_json(folder / EVALUATOR_METRICS, [asdict(metric) for metric in found])
    finished.record(label)

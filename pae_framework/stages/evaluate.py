"""Stage ``evaluate``: compute the metrics of every evaluator; write ``results.json``."""

from __future__ import annotations

from dataclasses import asdict

from pae_framework.build import build_evaluator
from pae_framework.evaluation.inputs import RunInputs
from pae_framework.execution.context import StageContext
from pae_framework.execution.probe import require_metrics
from pae_framework.runs.run_metrics import RESULTS, Metrics, read_metrics_file
from pae_framework.system.files import make_folder, write_json


def run(context: StageContext) -> None:
    """Run every evaluator; after an interruption, only the unfinished ones.

    The main process runs them. The others help with the networks that its inputs need.
    """
    inputs = RunInputs(context, world=context.world, store=context.run.store)
    if not context.world.is_main:
        inputs.serve()
        return
    evaluators = context.recipe.evaluate
    metrics: Metrics = []
    with context.progress(len(evaluators)) as progress:
        for number, (label, component) in enumerate(evaluators.items()):
            progress.update(number, label)
            directory = context.directory / label
            results = directory / "metrics.json"
            if not results.exists():
                make_folder(directory)
                evaluator = build_evaluator(component, context.registry)
                found = evaluator.evaluate(inputs, directory)
                require_metrics(found, component, context.registry)
                write_json(results, [asdict(metric) for metric in found])
            metrics += read_metrics_file(results)
        progress.update(len(evaluators))
    inputs.end()
    write_json(context.directory / RESULTS, metrics)

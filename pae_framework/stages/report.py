"""Stage ``report``: the results of a run, or of a sweep, as one self-contained HTML file."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pae_framework.evaluation.inputs import RunInputs
from pae_framework.execution.context import StageContext
from pae_framework.recipe.stage_table import STAGES
from pae_framework.report.content import LabeledImages, ReportContent, StageSummary, SweepContent
from pae_framework.report.html import render, render_sweep
from pae_framework.report.metrics import generator_words
from pae_framework.report.table import MemberMetrics
from pae_framework.runs.directory import REPORT, RESOLVED, RunDirectory
from pae_framework.runs.results import StageResults
from pae_framework.runs.run_metrics import RESULTS, Metrics, read_metrics_file
from pae_framework.sampling.sample_set import read_sets
from pae_framework.system.files import write_text
from pae_framework.tensor_files import load_tensors, save_tensors
from pae_framework.training.metrics_log import describe_gap, read_log

logger = logging.getLogger(__name__)

SHOWN = 16
"""Test images shown with their reconstructions and latents."""
SHOWN_IMAGES = "shown_images.safetensors"


def run(context: StageContext) -> None:
    """Write ``report.html`` and link it at the top of the run."""
    if not context.world.is_main:
        return
    write_text(context.directory / REPORT, render(gather(context)))
    context.run.link_report()


def rewrite(context: StageContext) -> None:
    """Write the report of a finished run again.

    Raises:
        RunError: another process works on it.
    """
    record = context.run.stage(context.planned)
    with record.lock(waiting=None):
        run(context)
        record.renew_results()


def write_comparison(
    sweep: RunDirectory,
    description: str,
    results: Sequence[dict[str, Any]],
    samples_of: Mapping[str, StageResults],
) -> Path:
    """Write ``report.html`` of a sweep from its finished members; returns its path.

    Args:
        sweep: the directory of the sweep.
        description: of its recipe.
        results: of the finished members.
        samples_of: the stage ``sample`` of each finished member that has one.
    """
    members = [MemberMetrics(x["variant"], x["seed"], x["metrics"]) for x in results]
    samples: dict[str, LabeledImages] = {}
    for result in results:
        member = result["member"]
        if result["variant"] not in samples and member in samples_of:
            main = read_sets(samples_of[member].file)[0]
            title = f"{member}, {generator_words(main.generator_step)}"
            samples[result["variant"]] = LabeledImages(title, main.images, main.labels)
    info = sweep.info
    content = SweepContent(
        name=info["name"],
        members=members,
        description=description,
        recipe_yaml=sweep.text(RESOLVED),
        samples=samples,
        environment=sweep.environment,
        commands=[info["command"]],
    )
    path = sweep.path / REPORT
    write_text(path, render_sweep(content))
    return path


@torch.no_grad()
def gather(context: StageContext) -> ReportContent:
    """Collect the content of the report."""
    inputs = _inputs(context)
    logs = {name: _log(context, name) for name in context.planned.inputs}
    return ReportContent(
        name=context.recipe.name,
        description=context.recipe.description,
        recipe_yaml=context.run.text(RESOLVED),
        given_yaml=context.run.text("recipe.yaml"),
        overrides=context.run.text("overrides.txt").splitlines(),
        environment=context.run.environment,
        stages=[_summary(context, name, rows) for name, rows in logs.items()],
        curves={name: rows for name, rows in logs.items() if rows},
        metrics=_metrics(context),
        originals=inputs.images,
        reconstructions=inputs.reconstructions,
        samples=_samples(inputs) if context.reads("sample") else [],
        class_names=list(context.class_names),
        latents=inputs.latents,
        latent_images=inputs.images,
        commands=_commands(context),
    )


def _inputs(context: StageContext) -> RunInputs:
    """Inputs with the test images to show, which are kept: a later report needs no others."""
    file = context.directory / SHOWN_IMAGES
    if file.is_file():
        kept = load_tensors(file)
        return RunInputs(context, limit=SHOWN, test=(kept["images"], kept["labels"]))
    inputs = RunInputs(context, limit=SHOWN)
    save_tensors({"images": inputs.images, "labels": inputs.labels}, file)
    return inputs


def _summary(context: StageContext, name: str, rows: Sequence[dict[str, float]]) -> StageSummary:
    info: dict[str, Any] = context.run.stage(context.plan[name]).info
    rates = [row["images_per_s"] for row in rows if "images_per_s" in row]
    return StageSummary(
        name,
        seconds=float(info.get("seconds", 0.0)),
        steps=int(rows[-1]["step"]) if rows else None,
        images_per_s=sorted(rates)[len(rates) // 2] if rates else None,
        note=f"fingerprint {context.plan[name].fingerprint}",
    )


def _metrics(context: StageContext) -> Metrics:
    if not context.reads("evaluate"):
        return []
    return read_metrics_file(context.file("evaluate", RESULTS))


def _log(context: StageContext, name: str) -> list[dict[str, float]]:
    """Records of a stage's log; warns if they do not reach the end of its training."""
    stage = context.run.stage(context.plan[name])
    path = stage.path / "metrics.jsonl"
    rows = read_log(path)
    trained = STAGES[name].train(context.recipe) is not None
    if trained and (gap := describe_gap(path, rows, stage.total or 0)):
        logger.warning("%s; the report shows what is left", gap)
    return rows


def _samples(inputs: RunInputs) -> list[LabeledImages]:
    return [
        LabeledImages(
            f"{generator_words(sampled.generator_step)}, {sampled.steps} sampling steps",
            sampled.images,
            sampled.labels,
        )
        for sampled in inputs.sample_sets
        if sampled.role != "convergence"  # of other labels
    ]


def _commands(context: StageContext) -> list[str]:
    """The original command, and one that repeats the run on this machine."""
    path = shlex.quote(str(context.run.path))
    repeat = f"pae run {path}/resolved.yaml --run-dir {path}"
    return [context.run.info["command"], repeat]

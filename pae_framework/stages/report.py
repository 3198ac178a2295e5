"""Stage ``report``: the results of a run, or of a sweep, as one self-contained HTML file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pae_framework.evaluation.inputs import RunInputs
from pae_framework.execution.context import StageContext
from pae_framework.files import read_json, write_text
from pae_framework.report.content import LabeledImages, ReportContent, StageSummary, SweepContent
from pae_framework.report.html import render, render_sweep
from pae_framework.report.metrics import generator_words
from pae_framework.report.table import MemberMetrics
from pae_framework.runs.directory import RECORD, REPORT
from pae_framework.sampling.sample_set import read_sets
from pae_framework.tensor_files import load_tensors, save_tensors
from pae_framework.training.metrics_log import read_log

SHOWN = 16
"""Test images shown with their reconstructions and latents."""
SHOWN_IMAGES = "shown_images.safetensors"


def run(context: StageContext) -> None:
    """Write ``report.html`` and link it at the top of the run."""
    write_text(context.directory / REPORT, render(gather(context)))
    context.run.link_report()


def write_comparison(directory: Path, description: str, results: Sequence[dict[str, Any]]) -> Path:
    """Write ``report.html`` of a sweep from its finished members; returns its path."""
    members = [MemberMetrics(x["variant"], x["seed"], x["metrics"]) for x in results]
    samples: dict[str, LabeledImages] = {}
    for result in results:
        if result["variant"] not in samples and "samples" in result:
            main = read_sets(directory / result["samples"])[0]
            title = f"{result['member']}, {generator_words(main.generator_step)}"
            samples[result["variant"]] = LabeledImages(title, main.images, main.labels)
    info = read_json(directory / RECORD)
    content = SweepContent(
        name=info["name"],
        members=members,
        description=description,
        recipe_yaml=(directory / "resolved.yaml").read_text(encoding="utf-8"),
        samples=samples,
        environment=read_json(directory / "environment.json"),
        commands=[info["command"]],
    )
    path = directory / REPORT
    write_text(path, render_sweep(content))
    return path


@torch.no_grad()
def gather(context: StageContext) -> ReportContent:
    """Collect the content of the report."""
    folder = context.run.path
    inputs = _inputs(context)
    evaluated = context.input("evaluate")
    return ReportContent(
        name=context.recipe.name,
        description=context.recipe.description,
        recipe_yaml=(folder / "resolved.yaml").read_text(encoding="utf-8"),
        given_yaml=(folder / "recipe.yaml").read_text(encoding="utf-8"),
        overrides=(folder / "overrides.txt").read_text(encoding="utf-8").splitlines(),
        environment=read_json(folder / "environment.json"),
        stages=[_summary(context, name) for name in context.planned.inputs],
        curves={
            name: rows
            for name in context.planned.inputs
            if (rows := read_log(context.require(name) / "metrics.jsonl"))
        },
        metrics=read_json(evaluated / "results.json") if evaluated else [],
        originals=inputs.images,
        reconstructions=inputs.reconstructions,
        samples=_samples(inputs) if context.input("sample") else [],
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


def _summary(context: StageContext, name: str) -> StageSummary:
    info: dict[str, Any] = context.run.stage(context.plan[name]).info
    rows = read_log(context.require(name) / "metrics.jsonl")
    rates = [row["images_per_s"] for row in rows if "images_per_s" in row]
    return StageSummary(
        name,
        seconds=float(info.get("seconds", 0.0)),
        steps=int(rows[-1]["step"]) if rows else None,
        images_per_s=sorted(rates)[len(rates) // 2] if rates else None,
        note=f"fingerprint {context.plan[name].fingerprint}",
    )


def _samples(inputs: RunInputs) -> list[LabeledImages]:
    return [
        LabeledImages(
            f"{generator_words(sampled.generator_step)}, {sampled.steps} sampling steps",
            sampled.images,
            sampled.labels,
        )
        for sampled in inputs.sample_sets
    ]


def _commands(context: StageContext) -> list[str]:
    """The original command, and one that repeats the run on this machine."""
    path = shlex.quote(str(context.run.path))
    repeat = f"pae run {path}/resolved.yaml --run-dir {path}"
    return [read_json(context.run.path / RECORD)["command"], repeat]

"""Stage ``report``: the results of a run, or of a sweep, as one self-contained HTML file."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pae_framework.contracts import SampleSet
from pae_framework.errors import PaeError
from pae_framework.evaluation.shown import (
    clusters,
    nearest_to_samples,
    rotations,
    shown_inputs,
    shown_latents,
    shown_reconstructions,
    variant_images,
)
from pae_framework.execution.context import StageContext
from pae_framework.metrics_file import METRICS, describe_gap, read_log
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.parent_changes import changes_to_parent
from pae_framework.recipe.smoke import is_smoke
from pae_framework.recipe.stage_table import STAGES
from pae_framework.recipe.sweep import Member, base_variant, differing_values, expand
from pae_framework.report.attachments import Attachment, attachable, read_attachments
from pae_framework.report.content import (
    LabeledImages,
    ReportContent,
    StageSummary,
    SweepContent,
    VariantImages,
)
from pae_framework.report.html import render, render_sweep
from pae_framework.report.metrics import generator_words
from pae_framework.report.table import MemberMetrics
from pae_framework.report.verdict import Verdict, judge
from pae_framework.runs.directory import REPORT, RESOLVED, RunDirectory
from pae_framework.runs.opened import OpenedRun
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.results import StageResults
from pae_framework.runs.run_metrics import RESULTS, Metrics, read_metrics_file
from pae_framework.runs.sweep_paper import beside_paper
from pae_framework.sampling.sample_set import read_sets
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import write_text

logger = logging.getLogger(__name__)

GIVEN = "recipe.yaml"
"""The recipe file as given."""


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


@dataclass(frozen=True)
class FinishedMember:
    """A finished member of a sweep.

    Args:
        member: its name, variant, seed and recipe.
        run: its directory.
        plan: its stages by name.
        metrics: those of its stage ``evaluate``.
    """

    member: Member
    run: RunDirectory
    plan: dict[str, PlannedStage]
    metrics: Metrics

    @property
    def samples(self) -> StageResults | None:
        """Its stage ``sample``; None if the recipe has none."""
        return self.run.results(self.plan["sample"]) if "sample" in self.plan else None

    @property
    def has_report(self) -> bool:
        """Whether its own report is written."""
        return "report" in self.plan and self.run.stage(self.plan["report"]).done

    def context(self) -> StageContext:
        """A context of its stage ``report``."""
        opened = OpenedRun(self.member.loaded, self.run, self.plan)
        return StageContext.of_finished_run(opened, "report", PlainConsole(stderr=True))


def write_comparison(
    sweep: RunDirectory, loaded: LoadedRecipe, finished: Sequence[FinishedMember]
) -> Path:
    """Write ``report.html`` of a sweep from its finished members; returns its path.

    Args:
        sweep: the directory of the sweep.
        loaded: its recipe.
        finished: its finished members.
    """
    members, names = expand(loaded), {each.member.name for each in finished}
    first = {each.member.variant: each for each in reversed(finished)}
    variants = dict.fromkeys(member.variant for member in members)
    shown = {name: first[name] for name in variants if name in first}
    samples = {name: _main_samples(each) for name, each in shown.items() if each.samples}
    images, class_names = _variant_images(shown)
    metrics = [
        MemberMetrics(each.member.variant, each.member.seed, each.metrics) for each in finished
    ]
    content = SweepContent(
        name=sweep.info["name"],
        members=metrics,
        description=loaded.recipe.description,
        recipe_yaml=sweep.text(RESOLVED),
        reports={
            (each.member.variant, each.member.seed): f"members/{each.member.name}/{REPORT}"
            for each in finished
            if each.has_report
        },
        unfinished=[member.name for member in members if member.name not in names],
        variants=list(variants),
        differences=differing_values(members),
        base=base_variant(loaded),
        verdicts=_verdicts(metrics, smoke=is_smoke(loaded.recipe.name)),
        paper=beside_paper(loaded, metrics),
        samples=samples,
        shown=images,
        class_names=class_names,
        environment=sweep.environment,
        commands=[sweep.info["command"]],
    )
    path = sweep.path / REPORT
    write_text(path, render_sweep(content))
    return path


def _verdicts(members: Sequence[MemberMetrics], *, smoke: bool) -> dict[tuple[str, int], Verdict]:
    """The verdicts on members, as in their own reports."""
    found = {(each.variant, each.seed): judge(each.metrics, smoke=smoke) for each in members}
    return {key: verdict for key, verdict in found.items() if verdict is not None}


def _main_samples(finished: FinishedMember) -> LabeledImages:
    assert finished.samples is not None
    main = read_sets(finished.samples.file)[0]
    title = f"{finished.member.name}, {generator_words(main.generator_step)}"
    return LabeledImages(title, main.images, main.labels)


@torch.no_grad()
def _variant_images(
    members: Mapping[str, FinishedMember],
) -> tuple[dict[str, VariantImages], list[str]]:
    """Of each variant the images that its report shows, and the names of their classes.

    Warns where they cannot be computed.
    """
    found: dict[str, VariantImages] = {}
    class_names: list[str] = []
    for variant, finished in members.items():
        if not finished.has_report:
            continue
        try:
            context = finished.context()
            class_names = class_names or list(context.class_names)
            images = variant_images(context)
        except PaeError as error:
            logger.warning("the report shows no reconstructions of %s: %s", variant, error)
            continue
        if images is not None:
            found[variant] = images
    return found, class_names


@torch.no_grad()
def gather(context: StageContext) -> ReportContent:
    """Collect the content of the report."""
    inputs, masks = shown_inputs(context)
    sets = inputs.sample_sets if context.reads("sample") else []
    metrics = _metrics(context)
    logs = {name: _log(context, name) for name in context.planned.inputs}
    return ReportContent(
        name=context.recipe.name,
        description=context.recipe.description,
        recipe_yaml=context.run.text(RESOLVED),
        given_yaml=context.run.text(GIVEN),
        overrides=context.run.text("overrides.txt").splitlines(),
        environment=context.run.environment,
        stages=[_summary(context, name, rows) for name, rows in logs.items()],
        curves={name: rows for name, rows in logs.items() if rows},
        metrics=metrics,
        verdict=judge(metrics, smoke=is_smoke(context.recipe.name)),
        originals=inputs.images,
        reconstructions=shown_reconstructions(inputs),
        samples=_labeled(sets[0]) if sets else None,
        same_noise=same_noise(sets),
        nearest=nearest_to_samples(context, inputs),
        class_names=list(context.class_names),
        latents=shown_latents(inputs),
        latent_images=inputs.images,
        clusters=clusters(inputs, masks),
        rotations=rotations(inputs),
        attachments=attachments_of(context),
        changes=_changes(context),
        commands=_commands(context),
    )


def _summary(context: StageContext, name: str, rows: Sequence[dict[str, float]]) -> StageSummary:
    info: dict[str, Any] = context.run.stage(context.plan[name]).info
    rates = [row["images_per_s"] for row in rows if "images_per_s" in row]
    return StageSummary(
        name,
        seconds=float(info.get("seconds", 0.0)),
        steps=int(rows[-1]["step"]) if rows else None,
        images_per_s=sorted(rates)[len(rates) // 2] if rates else None,
        fingerprint=context.plan[name].fingerprint,
    )


def _metrics(context: StageContext) -> Metrics:
    if not context.reads("evaluate"):
        return []
    return read_metrics_file(context.file("evaluate", RESULTS))


def _log(context: StageContext, name: str) -> list[dict[str, float]]:
    """Records of a stage's log; warns if they do not reach the end of its training."""
    stage = context.run.stage(context.plan[name])
    path = stage.path / METRICS
    rows = read_log(path)
    trained = STAGES[name].train(context.recipe) is not None
    if trained and (gap := describe_gap(path, rows, stage.total or 0)):
        logger.warning("%s; the report shows what is left", gap)
    return rows


def _labeled(samples: SampleSet) -> LabeledImages:
    label = f"{generator_words(samples.generator_step)}, {samples.steps} sampling steps"
    return LabeledImages(label, samples.images, samples.labels)


def same_noise(sets: Sequence[SampleSet]) -> dict[str, list[LabeledImages]]:
    """The sets of earlier weights, of variants and of other numbers of steps, each with the main
    set."""
    training = sorted(_with_role(sets, "checkpoint"), key=lambda each: each.generator_step)
    few = sorted(_with_role(sets, "few_steps"), key=lambda each: each.steps)
    several = len({each.protocol.get("solver") for each in few}) > 1
    return {
        "During training": [
            LabeledImages(generator_words(each.generator_step), each.images, each.labels)
            for each in training
        ],
        "With other settings": [
            LabeledImages(each.variant or "as in the recipe", each.images, each.labels)
            for each in _with_role(sets, "variant")
        ],
        "With few sampling steps": [
            LabeledImages(
                f"{each.protocol['solver']}, {each.steps} sampling steps"
                if several
                else f"{each.steps} sampling steps",
                each.images,
                each.labels,
            )
            for each in few
        ],
    }


def _with_role(sets: Sequence[SampleSet], role: str) -> list[SampleSet]:
    return [each for each in sets if each.role in ("main", role)]


def attachments_of(context: StageContext) -> dict[str, list[Attachment]]:
    """The pictures and tables of each evaluator, and the text files with their captions."""
    if not context.reads("evaluate"):
        return {}
    names = context.results("evaluate").names()
    evaluators = {}
    for label in context.recipe.evaluate:
        own = [name for name in names if name.startswith(f"{label}/")]
        files = {name: context.file("evaluate", name) for name in own}
        evaluators[label] = {name: files[name] for name in attachable(own)}
    return read_attachments(evaluators)


def _changes(context: StageContext) -> list[tuple[str, str, str]]:
    """What the recipe changes in its parent; nothing if its files are not as they were."""
    path = Path(context.run.info.get("recipe", ""))
    try:
        if not path.is_file() or path.read_text(encoding="utf-8") != context.run.text(GIVEN):
            return []
        overrides = context.run.text("overrides.txt").splitlines()
        return changes_to_parent(path, overrides, context.registry)
    except (PaeError, OSError, UnicodeDecodeError):
        return []


def _commands(context: StageContext) -> list[str]:
    """The original command, and one that repeats the run on this machine."""
    path = shlex.quote(str(context.run.path))
    repeat = f"pae run {path}/resolved.yaml --run-dir {path}"
    return [context.run.info["command"], repeat]

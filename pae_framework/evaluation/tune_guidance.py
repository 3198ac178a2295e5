"""The command ``pae tune-guidance``: Frechet distances of samples over a grid of guidance settings.

Samples are measured as they are sampled and not kept. Each point leaves a file with its distance
under a name that hashes all it depends on, so the same command resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from pae_framework.errors import RunError, UsageError
from pae_framework.evaluation.image_sets import SourceImages
from pae_framework.evaluation.inputs import RunInputs
from pae_framework.execution.context import StageContext, configure_torch
from pae_framework.execution.items import do_items
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.guidance_grid import GuidancePoint
from pae_framework.flow.sampling import EvaluationCount, label_plan
from pae_framework.metrics.feature_statistics import FeatureStatistics
from pae_framework.metrics.frechet import frechet_distance
from pae_framework.metrics.inception import RANDOM, WeightsIdentity, identify, inception_file
from pae_framework.recipe.emit import inline
from pae_framework.runs.plan import component_identity
from pae_framework.runs.reading import read_record
from pae_framework.sampling.reuse import set_identity
from pae_framework.sampling.sampler import Sampler
from pae_framework.system.files import json_digest, make_folder, write_json

TunedMetric = Literal["fd", "fid"]
_VERSION = 2
"""Increase it if the same point gets another distance."""
_BATCH = 250
"""Test images whose features are in memory at once."""
WEIGHTS = "weights.safetensors"
_TUNED = {"solver", "steps", "shift", "shift_base", "guidance", "precision"}
"""What :func:`best_line` always tells, so that no value of a parent recipe takes its place."""
_FEW_STEPS = ("few_steps", "few_steps_solvers")


class _Result(BaseModel):
    label: str
    value: float
    protocol: dict[str, Any]


@dataclass(frozen=True)
class Tuning:
    """What to tune: the points, the settings of all else, the metric and where results are kept.

    ``inception`` are the weights for the metric ``fid``: ``default``, ``none`` or a file name.
    """

    points: tuple[GuidancePoint, ...]
    base: SampleSettings
    metric: TunedMetric
    inception: str
    folder: Path


@dataclass(frozen=True)
class Measured:
    """A point with its distance, what the distance is called, and its protocol."""

    point: GuidancePoint
    label: str
    value: float
    protocol: Mapping[str, Any]


def reading_extractor(context: StageContext) -> StageContext:
    """The context of a finished run, which reads its extractor too.

    Raises:
        UsageError: the recipe has no extractor, or its stage is not finished.
    """
    if context.recipe.extractor is None:
        raise UsageError("the recipe of this run has no `extractor`; use --metric fid")
    planned = context.plan.get("extractor")
    if planned is None:  # it was not trained in the run
        return context
    if not context.run.stage(planned).done:
        raise UsageError(f"stage 'extractor' of {context.run.path} is not done")
    inputs = tuple(dict.fromkeys((*context.planned.inputs, "extractor")))
    return replace(context, planned=replace(context.planned, inputs=inputs))


def tune(
    context: StageContext,
    tuning: Tuning,
    make_sampler: Callable[[StageContext], Sampler] = Sampler.of,
) -> None:
    """Measure every point that has no result yet. The processes share the points.

    Raises:
        StoppedError: a signal asked to stop; the points under way were finished.
    """
    configure_torch(context.recipe.runtime, context.world.local_size)
    context = replace(context, recipe=context.recipe.model_copy(update={"sample": tuning.base}))
    measurement = _Measurement(context, tuning, make_sampler)
    files = result_files(context, tuning)
    missing = context.world.on_main(
        lambda: [number for number, file in enumerate(files) if _read(file) is None]
    )
    before = len(files) - len(missing)
    with context.progress(len(files), before) as progress:

        def work(number: int) -> None:
            file = files[missing[number]]
            if _read(file) is None:
                measurement.write(tuning.points[missing[number]], file)

        do_items(context, work, len(missing), "points", lambda done: progress.update(before + done))


def measured(context: StageContext, tuning: Tuning) -> list[Measured]:
    """The results of all points, the smallest distance first.

    Raises:
        RunError: a point has none.
    """
    found = []
    for point, file in zip(tuning.points, result_files(context, tuning), strict=True):
        result = _read(file)
        if result is None:
            raise RunError(f"{file} is missing or damaged; run the same command again")
        found.append(Measured(point, result.label, result.value, result.protocol))
    return sorted(found, key=lambda entry: entry.value)


def result_files(context: StageContext, tuning: Tuning) -> list[Path]:
    """The file of each point's result, named by a hash of what the result depends on."""
    weights, labels = context.file("generator", WEIGHTS), _labels(context, tuning.base)
    distance = _distance_identity(context, tuning)

    def digest(point: GuidancePoint) -> str:
        images = set_identity(context, weights, labels, point.settings(tuning.base))
        return json_digest([_VERSION, distance, images])

    return [tuning.folder / f"point-{digest(point)}.json" for point in tuning.points]


def _labels(context: StageContext, base: SampleSettings) -> Tensor:
    return label_plan(base.count, context.num_classes, base.seed, base.labels)


def _distance_identity(context: StageContext, tuning: Tuning) -> list[Any]:
    """The network that extracts features, and the test images."""
    recipe = context.recipe
    test = SourceImages("data.test", recipe.data.test, context.test_source)
    chosen = [test.identity(), recipe.data.image_size, recipe.data.test_images, recipe.seed]
    if tuning.metric == "fid":
        return ["inception", _inception_identity(tuning.inception).sha256, *chosen]
    extractor = context.plan.get("extractor")
    assert recipe.extractor is not None
    component = component_identity(recipe.extractor, context.registry)
    return [component, None if extractor is None else extractor.fingerprint, *chosen]


def _inception_identity(weights: str) -> WeightsIdentity:
    return WeightsIdentity(RANDOM) if weights == RANDOM else identify(inception_file(weights))


class _Measurement:
    """Samples images and measures their distance to the test images."""

    def __init__(
        self,
        context: StageContext,
        tuning: Tuning,
        make_sampler: Callable[[StageContext], Sampler],
    ):
        self._context, self._tuning, self._make_sampler = context, tuning, make_sampler

    @cached_property
    def _sampler(self) -> Sampler:
        return self._make_sampler(self._context)

    @cached_property
    def _inputs(self) -> RunInputs:
        return RunInputs(self._context)

    @cached_property
    def _extractor(self) -> Callable[[Tensor], Tensor]:
        """Features (B, D) of uint8 images (B, 3, S, S)."""
        if self._tuning.metric == "fd":
            return self._inputs.extractor
        network = self._inputs.inception(self._tuning.inception)
        return lambda images: network(images)[0]

    @cached_property
    def _reference(self) -> FeatureStatistics:
        return _statistics(map(self._extractor, self._inputs.images.split(_BATCH)))

    def write(self, point: GuidancePoint, file: Path) -> None:
        """Measure a point and write its result."""
        settings = point.settings(self._tuning.base)
        count = EvaluationCount()
        labels = _labels(self._context, settings)
        sample = replace(self._sampler, count=count).for_set(labels, settings)
        batches = torch.arange(settings.count).split(settings.batch_size)
        statistics = _statistics(self._extractor(sample(numbers)) for numbers in batches)
        protocol = {
            **self._inputs.protocol_of("test_images"),
            **replace(self._sampler, count=count).describe(settings),
            "labels": f"{settings.labels}, shuffled",
            "count": statistics.count,
            "reference": "test images",
            "reference_count": self._reference.count,
            **self._network(),
        }
        value = frechet_distance(statistics, self._reference)
        write_json(file, {"label": self._label(), "value": value, "protocol": protocol})

    def _label(self) -> str:
        """``FID`` only with the published weights of Inception; else FD and the network."""
        if self._tuning.metric == "fd":
            return self._inputs.extractor.label("FD")
        weights = _inception_identity(self._tuning.inception)
        return "FID" if weights.published else f"FD ({weights.words})"

    def _network(self) -> Mapping[str, Any]:
        if self._tuning.metric == "fd":
            return self._inputs.protocol_of("extractor")
        weights = _inception_identity(self._tuning.inception)
        return {"extractor": weights.words, "extractor_sha256": weights.sha256}


def _statistics(batches: Any) -> FeatureStatistics:
    statistics: FeatureStatistics | None = None
    for features in batches:
        statistics = statistics or FeatureStatistics(features.shape[1])
        statistics.update(features)
    assert statistics is not None
    return statistics


def _read(file: Path) -> _Result | None:
    """The result of a point; None if it is missing or damaged."""
    try:
        return _Result(**read_record(file, _Result, "run the same command again"))
    except RunError:
        return None


def prepare_folder(folder: Path) -> None:
    """Create the folder of the results.

    Raises:
        WriteError: it cannot be written.
    """
    make_folder(folder)


def best_line(own: SampleSettings, best: SampleSettings) -> str:
    """The ``sample`` section of a recipe with tuned settings, on one line.

    Number of images, sets and seed are those of the recipe. Numbers of few steps that the solver
    cannot take are left out, and variants that the tuned settings contradict or equal.

    Args:
        own: the settings of the recipe.
        best: those of the best point.
    """
    tuned = best.model_dump(mode="json", include=_TUNED)
    section = {**own.model_dump(mode="json"), **tuned}
    told = set(tuned)
    alone = {**section, **{key: [] for key in _FEW_STEPS}, "variants": {}}
    if not _is_valid({**section, "variants": {}}):
        section |= {key: [] for key in _FEW_STEPS}
        told |= set(_FEW_STEPS)
    variants = {
        label: variant
        for label, variant in section["variants"].items()
        if _is_valid({**alone, "variants": {label: variant}})
    }
    left_out = section["variants"].keys() - variants.keys()
    section["variants"] = variants
    section = SampleSettings.model_validate(section).model_dump(mode="json")
    default = SampleSettings().model_dump(mode="json")
    changed = {key: x for key, x in section.items() if key in told or x != default[key]}
    if left_out:  # null removes a variant that a parent recipe has
        changed["variants"] = {**section["variants"], **dict.fromkeys(sorted(left_out))}
    return inline({"sample": changed})[1:-1]


def _is_valid(section: dict[str, Any]) -> bool:
    try:
        SampleSettings.model_validate(section)
    except ValidationError:
        return False
    return True


def cautions(count: int, points: Sequence[Any]) -> list[str]:
    """What a reader of the table must know."""
    found = [
        f"{count} images: the distance is too large, by an amount that also depends on the "
        "settings; measure the best few with as many images as you will report"
    ]
    if len(points) > 1:
        found.append(
            f"the least of {len(points)} values is too small for its setting: it was chosen for "
            "its noise, too; measure it again with another --seed"
        )
    return found

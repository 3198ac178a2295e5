"""Diagnostics of a latent space, each graded by rules on its reference rows. No torch.

docs/concepts.md states the rules and why they are these. Thresholds come from reference rows of the
same run; a difference counts only if it exceeds the error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from pae_framework.report.metrics import MetricFields, decimals_for, fixed, number
from pae_framework.report.published import published_rows

Grade = Literal["good", "poor", "unclear", "no collapse"]

_GROUP = "manifold"
_RANDOM, _PIXELS = "random latents", "components of pixels"
_ENCODER, _OTHER, _STILL = "the encoder's features", "another latent", "no change"
_HARDLY_CLOSER = 0.8
"""Of the distance to another image: from here on, reconstructions do not show their own."""


@dataclass(frozen=True)
class Reference:
    """A row beside a diagnostic: what its value is of, and the value."""

    label: str
    value: float


@dataclass(frozen=True)
class Place:
    """A line of a diagnostic's scale; ``own``: the run's value."""

    label: str
    text: str
    own: bool


@dataclass(frozen=True)
class Diagnosis:
    """A diagnostic with its references.

    Args:
        label: short, such as ``SSC``.
        title: what it measures, in words.
        value: of the run.
        higher_is_better: its direction; None if it has none.
        grade: what the rules say.
        reason: why, in words.
        references: the rows that it is compared with.
        published: values of the paper, where the protocol allows.
    """

    label: str
    title: str
    value: float
    higher_is_better: bool | None
    grade: Grade
    reason: str
    references: tuple[Reference, ...]
    published: tuple[Reference, ...] = ()

    @property
    def scale(self) -> list[Place]:
        """The run's value between those of the references: the best last, or the largest."""
        own = Reference("this run", self.value)
        rows = [own, *self.references, *self.published]
        rows.sort(key=lambda row: row.value, reverse=self.higher_is_better is False)
        return [
            Place(row.label, fixed(row.value, decimals_for([row.value])), row is own)
            for row in rows
        ]


@dataclass(frozen=True)
class Property:
    """One of the three properties of a latent space that is easy to diffuse in.

    Args:
        key: of the diagnostic, after the group.
        label: of the diagnostic.
        title: the property.
        adjective: of latents that have it.
        worst: key and label of the reference without the property.
        best: key and label of the reference with it; None: the value 0.
        missing: why it may not be measured.
    """

    key: str
    label: str
    title: str
    adjective: str
    worst: tuple[str, str]
    best: tuple[str, str] | None
    missing: str


PROPERTIES = (
    Property(
        "ssc",
        "SSC",
        "spatial coherence (tokens of one segment are alike)",
        "spatially coherent",
        ("ssc_random", _RANDOM),
        ("ssc_encoder", _ENCODER),
        "Spatial coherence (SSC) was not measured: it needs masks of the test images.",
    ),
    Property(
        "lpc",
        "LPC",
        "local continuity (the image changes little with the latent)",
        "locally continuous",
        ("lpc_other", _OTHER),
        None,
        "Local continuity (LPC) was not measured.",
    ),
    Property(
        "gsq",
        "GSQ",
        "semantic organization (images of one class are neighbors)",
        "semantically organized",
        ("gsq_random", _RANDOM),
        ("gsq_encoder", _ENCODER),
        "Semantic organization (GSQ) was not measured.",
    ),
)


class Values:
    """The diagnostics by their keys, and how far off they may be.

    A value that is not finite counts as not measured.
    """

    def __init__(self, metrics: Sequence[MetricFields]):
        self._metrics: dict[str, MetricFields] = {}
        for metric in metrics:
            group, _, key = str(metric["name"]).partition("/")
            value = number(metric)
            if group == _GROUP and value is not None and math.isfinite(value):
                self._metrics[key] = metric

    def __contains__(self, key: str) -> bool:
        return key in self._metrics

    def keys(self) -> Set[str]:
        """Keys of the diagnostics and references."""
        return self._metrics.keys()

    def __getitem__(self, key: str) -> float:
        value = number(self._metrics[key])
        assert value is not None
        return value

    def protocol(self, key: str) -> Mapping[str, Any]:
        """How a diagnostic was measured."""
        return self._metrics[key].get("protocol") or {} if key in self else {}

    def subject(self, key: str) -> Mapping[str, Any]:
        """What was measured."""
        return self._metrics[key].get("subject") or {} if key in self else {}

    @property
    def has_references(self) -> bool:
        """Whether the run computed references."""
        return any("reference" in self.subject(key) for key in self._metrics)

    @property
    def classes(self) -> int | None:
        """Classes of the test images; None if unknown."""
        counts = (self.protocol(key).get("of_classes") for key in self._metrics)
        return next((int(count) for count in counts if count is not None), None)

    def images(self, key: str) -> int:
        """The smallest number of images of a diagnostic and its references."""
        counts = (self.protocol(name).get("count") for name in self._of(key))
        return min((int(count) for count in counts if count), default=1)

    def drawn_from(self, key: str) -> int | None:
        """How many images a diagnostic draws its images from; None if it makes no draws."""
        return self.protocol(key).get("of")

    def error(self, key: str) -> float:
        """Two standard errors of a diagnostic and its references, at most; infinite if unknown.

        From the largest deviation over images. GSQ is a share, whose deviation is 1/2 at most.
        """
        images, deviation = self.images(key), 0.5 if key == "gsq" else self._deviation(key)
        return float(2 * deviation / images**0.5) if images > 1 else math.inf

    def _deviation(self, key: str) -> float:
        stds = (self._metrics[name].get("std") for name in self._of(key))
        known = [float(std) for std in stds if std is not None]
        return max(filter(math.isfinite, known), default=math.inf)

    def _of(self, key: str) -> Iterator[str]:
        return (name for name in self._metrics if name == key or name.startswith(f"{key}_"))

    def references(self, *rows: tuple[str, str]) -> tuple[Reference, ...]:
        """The rows that were computed, by key and label."""
        return tuple(Reference(label, self[key]) for key, label in rows if key in self)


def _closer(value: float, best: float, worst: float, error: float) -> Grade:
    """Good if a value is closer to the best than to the worst, poor if not."""
    lead = value - (best + worst) / 2
    if best < worst:
        lead = -lead
    return _beyond(lead, error)


def _beyond(lead: float, error: float) -> Grade:
    if abs(lead) <= error:
        return "unclear"
    return "good" if lead > 0 else "poor"


def grade(prop: Property, values: Values) -> Diagnosis:
    """The rule of the half-way point, and that of pixels, which may contradict it."""
    value, higher, error = values[prop.key], prop.best is not None, values.error(prop.key)
    pixels = f"{prop.key}_pixels", _PIXELS
    references = values.references(*filter(None, (prop.worst, pixels, prop.best)))

    def diagnosis(grade: Grade, reason: str) -> Diagnosis:
        published = tuple(
            Reference(label, found)
            for label, found in published_rows(prop.key, values.protocol(prop.key), values.classes)
        )
        return Diagnosis(
            prop.label, prop.title, value, higher, grade, reason, references, published
        )

    if prop.worst[0] not in values or pixels[0] not in values:
        return diagnosis("unclear", "there are no reference rows")
    if prop.best and prop.best[0] not in values:
        return diagnosis(*_without_best(prop, values))
    worst, best = values[prop.worst[0]], values[prop.best[0]] if prop.best else 0.0
    best_label = prop.best[1] if prop.best else _STILL
    if doubt := _doubt(prop, values, best - worst if higher else worst - best, best_label):
        return diagnosis("unclear", doubt)
    half_way = _closer(value, best, worst, error)
    against = _beyond(value - values[pixels[0]] if higher else values[pixels[0]] - value, error)
    nearer = {
        "good": f"closer to {best_label} than to {prop.worst[1]}",
        "poor": f"closer to {prop.worst[1]} than to {best_label}",
        "unclear": f"within error of half-way between {prop.worst[1]} and {best_label}",
    }[half_way]
    beside = {"good": "better than", "poor": "worse than", "unclear": "no better than"}[against]
    if {half_way, against} == {"good", "poor"}:
        reason = f"the rules disagree: {nearer}, but {beside} {_PIXELS}"
        return diagnosis("unclear", reason)
    if higher and (half_way, against) == ("good", "unclear"):
        return diagnosis("unclear", f"{nearer}, but {beside} {_PIXELS}")
    return diagnosis(half_way, f"{nearer}; {beside} {_PIXELS}")


def _without_best(prop: Property, values: Values) -> tuple[Grade, str]:
    """Grade and reason where nothing shows what can be reached, as in a tokenizer without encoder.

    Good if it is better than pixels, and poor if it is no better than random latents.
    """
    value, error = values[prop.key], values.error(prop.key)
    if not math.isfinite(error):
        return "unclear", "too few images to estimate its error"
    random = _beyond(value - values[prop.worst[0]], error)
    pixels = _beyond(value - values[f"{prop.key}_pixels"], error)
    words = {"good": "better than", "poor": "worse than", "unclear": "no better than"}
    if random != "good":
        return "poor", f"{words[random]} {prop.worst[1]}"
    if pixels != "good":
        return "unclear", f"better than {prop.worst[1]}, but {words[pixels]} {_PIXELS}"
    return "good", f"better than {_PIXELS}"


def _doubt(prop: Property, values: Values, gap: float, best_label: str) -> str:
    """Why the rules do not hold; empty if they do. ``gap``: by which the best row is better."""
    error = values.error(prop.key)
    if not math.isfinite(error):
        return "too few images to estimate its error"
    if prop.key == "lpc" and (decoder := decoder_grade(values)) != "good":
        if decoder == "poor":
            return "decoded images of different latents hardly differ"
        return "too few images to tell whether decoded images of different latents differ"
    if gap < -error:
        return f"{prop.worst[1]} are better than {best_label}"
    if gap <= error:
        return f"{best_label} and {prop.worst[1]} do not differ beyond error"
    return ""


def decoder_grade(values: Values) -> Grade:
    """Poor: decoded images of different latents are closer to one image than to different ones."""
    if not {"lpc_other", "distance_images"} <= values.keys():
        return "unclear"
    error = max(values.error("lpc"), values.error("distance"))
    return _closer(values["lpc_other"], values["distance_images"], 0.0, error)


def content_grade(values: Values) -> Grade | None:
    """Whether reconstructions show their own image; None: not measured.

    Good if they are less than half as far from it as from another image, poor if hardly closer.
    """
    if not {"distance_own", "distance_other"} <= values.keys():
        return None
    own, other, error = values["distance_own"], values["distance_other"], values.error("distance")
    if own > _HARDLY_CLOSER * other + error:
        return "poor"
    return "good" if own < other / 2 - error else "unclear"


def effective_rank(values: Values) -> Diagnosis | None:
    """Poor if the pooled latents use fewer than two directions, and random ones more."""
    channels = values.subject("erank").get("channels")
    if "erank" not in values or not channels:
        return None
    rows = values.references(("erank_random", _RANDOM), ("erank_pixels", _PIXELS))
    references = (Reference("one direction", 1 / channels), *rows)
    directions, noise = values["erank"] * channels, 0.0
    if "erank_random" in values:
        noise = values["erank_random"] * channels
    grade: Grade = "unclear"
    reason = f"the pooled latents use {directions:.1f} of {channels} directions"
    if not rows:
        reason = "there are no reference rows"
    elif noise < 2:
        reason = "random latents use fewer than two directions, too"
    else:
        grade = "poor" if directions < 2 else "no collapse"
    title = "variety (pooled latents use many directions)"
    return Diagnosis("eRank", title, values["erank"], None, grade, reason, references)

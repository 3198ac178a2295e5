"""Diagnostics of a latent space, each graded by rules on its reference rows. No torch.

docs/concepts.md states the rules and why they are these. Every threshold is half-way between two
reference rows of the same run; a difference counts only if it exceeds the error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from pae_framework.report.metrics import MetricFields, decimals_for, fixed, number
from pae_framework.report.published import published_rows

Grade = Literal["good", "poor", "unclear"]

_GROUP = "manifold"
_RANDOM, _PIXELS = "random latents", "components of pixels"
_ENCODER, _OTHER, _STILL = "the encoder's features", "another latent", "no change"


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
        higher_is_better: its direction.
        grade: what the rules say.
        reason: why, in words.
        references: the rows that it is compared with.
        published: values of the paper, where the protocol allows.
    """

    label: str
    title: str
    value: float
    higher_is_better: bool
    grade: Grade
    reason: str
    references: tuple[Reference, ...]
    published: tuple[Reference, ...] = ()

    @property
    def scale(self) -> list[Place]:
        """The run's value between those of the references, from the worst to the best."""
        own = Reference("this run", self.value)
        rows = [own, *self.references, *self.published]
        rows.sort(key=lambda row: row.value, reverse=not self.higher_is_better)
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
    """The diagnostics by their keys, and how far off they may be."""

    def __init__(self, metrics: Sequence[MetricFields]):
        self._metrics: dict[str, MetricFields] = {}
        for metric in metrics:
            group, _, key = str(metric["name"]).partition("/")
            if group == _GROUP and number(metric) is not None:
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
        found = self.protocol("gsq").get("of_classes")
        return int(found) if found is not None else None

    def images(self, key: str) -> int:
        """The smallest number of images of a diagnostic and its references."""
        counts = (self.protocol(name).get("count") for name in self._of(key))
        return min((int(count) for count in counts if count), default=1)

    def error(self, key: str) -> float:
        """Two standard errors of a diagnostic and its references, at most.

        From the largest deviation over images. GSQ is a share, whose deviation is 1/2 at most.
        """
        if key == "gsq":
            deviation = 0.5
        else:
            stds = (self._metrics[name].get("std") for name in self._of(key))
            deviation = max((float(std) for std in stds if std is not None), default=0.0)
        return float(2 * deviation / self.images(key) ** 0.5)

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

    needed = [prop.worst, pixels, *((prop.best,) if prop.best else ())]
    if any(key not in values for key, _ in needed):
        return diagnosis("unclear", "there are no reference rows")
    if prop.key == "lpc" and decoder_grade(values) != "good":
        return diagnosis("unclear", "decoded images of different latents hardly differ")
    worst, best = values[prop.worst[0]], values[prop.best[0]] if prop.best else 0.0
    best_label = prop.best[1] if prop.best else _STILL
    if (best - worst if higher else worst - best) <= error:
        return diagnosis("unclear", f"{best_label} and {prop.worst[1]} do not differ beyond error")
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
    return diagnosis(half_way, f"{nearer}; {beside} {_PIXELS}")


def decoder_grade(values: Values) -> Grade:
    """Poor: decoded images of different latents are closer to one image than to different ones."""
    if not {"lpc_other", "distance_images"} <= values.keys():
        return "unclear"
    error = max(values.error("lpc"), values.error("distance"))
    return _closer(values["lpc_other"], values["distance_images"], 0.0, error)


def content_grade(values: Values) -> Grade | None:
    """Poor: reconstructions are closer to another image than to their own; None: not measured."""
    if not {"distance_own", "distance_other"} <= values.keys():
        return None
    worst = values["distance_other"]
    return _closer(values["distance_own"], 0.0, worst, values.error("distance"))


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
        grade = "poor" if directions < 2 else "good"
    title = "variety (pooled latents use many directions)"
    return Diagnosis("eRank", title, values["erank"], True, grade, reason, references)

"""Whether a latent space is easy to diffuse in, from the grades of the diagnostics. No torch.

docs/concepts.md states the rules.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pae_framework.report.diagnosis import (
    PROPERTIES,
    Diagnosis,
    Grade,
    Property,
    Values,
    content_grade,
    decoder_grade,
    effective_rank,
    grade,
)
from pae_framework.report.metrics import MetricFields, decimals_for, fixed

Answer = Literal["yes", "no", "undecided"]

_FEW = 50
"""Images below which a caveat says so: references are computed for as many, if there are."""


@dataclass(frozen=True)
class Verdict:
    """The answer, one sentence, the diagnostics that it rests on, and what limits it."""

    answer: Answer
    sentence: str
    diagnoses: tuple[Diagnosis, ...]
    caveats: tuple[str, ...]

    @property
    def question(self) -> str:
        """What is answered."""
        return "Is this latent space easy to diffuse in?"


def judge(metrics: Sequence[MetricFields], *, smoke: bool = False) -> Verdict | None:
    """The verdict on a run; None if none of SSC, LPC and GSQ was measured.

    Args:
        metrics: of the run, those of references among them.
        smoke: whether it was a smoke run.
    """
    values = Values(metrics)
    if not any(prop.key in values for prop in PROPERTIES):
        return None
    content = content_grade(values)
    graded = {prop: grade(prop, values) for prop in PROPERTIES if prop.key in values}
    erank = effective_rank(values)
    grades = [diagnosis.grade for diagnosis in graded.values()]
    answer = _answer(grades, content, collapsed=erank is not None and erank.grade == "poor")
    sentence = _sentence(answer, values, graded, content, erank)
    if smoke:
        answer, sentence = "undecided", "Undecided: a smoke run only tests the wiring."
    diagnoses = (*graded.values(), *((erank,) if erank else ()))
    return Verdict(answer, sentence, diagnoses, tuple(_caveats(values, graded)))


def _answer(grades: Sequence[Grade], content: Grade | None, collapsed: bool) -> Answer:
    if content == "poor":
        return "no"
    poor = grades.count("poor") + collapsed
    if "good" not in grades and poor >= 2:
        return "no"
    if len(grades) >= 2 and set(grades) == {"good"} and content == "good" and not collapsed:
        return "yes"
    return "undecided"


def _sentence(
    answer: Answer,
    values: Values,
    graded: Mapping[Property, Diagnosis],
    content: Grade | None,
    erank: Diagnosis | None,
) -> str:
    word = answer.capitalize()
    if content == "poor":
        return f"{word}: reconstructions are hardly closer to their own image than to another one."
    if not values.has_references:
        return f"{word}: there are no reference rows; `pae evaluate RUN --again` computes them."
    adjectives: defaultdict[Grade, list[str]] = defaultdict(list)
    for prop, found in graded.items():
        adjectives[found.grade].append(prop.adjective)
    clauses = [_claim(adjectives["good"], adjectives["poor"])]
    if adjectives["unclear"]:
        they = "they are" if clauses[0] else "the latents are"
        clauses.append(f"whether {they} {_listed(adjectives['unclear'], 'or')} is unclear")
    if answer == "undecided" and len(graded) == 1:
        clauses.append("only one property was measured")
    if answer == "undecided" and content is None:
        clauses.append("whether they carry their images was not measured")
    if content == "unclear":
        clauses.append("whether they carry their images is unclear")
    if erank is not None and erank.grade == "poor":
        clauses.append("pooled, they vary along fewer than two directions")
    return f"{word}: {'; '.join(filter(None, clauses))}."


def _claim(good: Sequence[str], poor: Sequence[str]) -> str:
    if good:
        but = f", but not {_listed(poor, 'or')}" if poor else ""
        return f"the latents are {_listed(good, 'and')}{but}"
    if len(poor) > 1:
        return f"the latents are neither {_listed(poor, 'nor')}"
    return f"the latents are not {poor[0]}" if poor else ""


def _listed(words: Sequence[str], joint: str) -> str:
    *rest, last = words
    return f"{', '.join(rest)} {joint} {last}" if rest else last


def _caveats(values: Values, graded: Mapping[Property, Diagnosis]) -> Iterator[str]:
    """What limits the verdict."""
    for prop in PROPERTIES:
        if prop.key == "gsq" and prop.key not in values and values.classes == 1:
            yield f"{prop.missing[:-1]}: the test images are of one class."
        elif prop.key not in values:
            yield prop.missing
    ignores = decoder_grade(values) == "poor"
    if ignores:
        texts = _texts(values["lpc_other"], values["distance_images"])
        yield (
            "LPC says nothing of a decoder that ignores its latents: decoded images of different "
            f"latents differ by {texts[0]}, test images by {texts[1]}."
        )
    for prop, found in graded.items():
        count = values.images(prop.key)
        if prop.key == "lpc" and ignores:
            continue
        if found.grade == "unclear" and count < _FEW and values.has_references:
            yield _few(count, values.drawn_from(prop.key), prop.label, values.error(prop.key))
    if _untrained_encoder(values):
        yield "The encoder has random weights, so its features are no bound for the latents."


def _few(count: int, drawn_from: int | None, label: str, error: float) -> str:
    if not math.isfinite(error):
        return f"Too few images to estimate the error of {label}."
    off = f"may be off by {fixed(error, 2)}."
    if drawn_from is not None and count < drawn_from:
        return f"{label} takes {count} of the {drawn_from} test images at a time, so it {off}"
    return f"{count} images are few: {label} {off}"


def _untrained_encoder(values: Values) -> bool:
    subjects = (values.subject(key) for key in ("ssc_encoder", "gsq_encoder"))
    return any((x.get("encoder_settings") or {}).get("weights") == "none" for x in subjects)


def _texts(*numbers: float) -> list[str]:
    decimals = decimals_for(numbers)
    return [fixed(value, decimals) for value in numbers]

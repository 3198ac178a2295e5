"""What a training shows of itself: means of its terms, and how fast it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import fsum

import torch

from pae_framework.contracts import Batch, LossTerms


class Meter:
    """Means of loss terms and rates since the last reading; reads from the device in batches.

    Args:
        images_per_step: for the rate.
        look: called at a reading with each step since the last (its count, the first is 1) and its
            terms.
    """

    def __init__(self, images_per_step: int, look: Callable[[int, Mapping[str, float]], None]):
        self._images, self._look = images_per_step, look
        self._terms: list[LossTerms] = []
        self._waited = 0.0
        self._since = time.monotonic()

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, with the time waited for them counted."""
        iterator = iter(batches)
        while True:
            start = time.monotonic()
            batch = next(iterator, None)
            self._waited += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def add(self, terms: LossTerms) -> None:
        """Keep the terms of one step (no synchronisation)."""
        self._terms.append(terms)

    def read(self, step: int) -> dict[str, float]:
        """Means up to ``step``, images per second and the share of time waited for data.

        A term that only some steps had is averaged over those.
        """
        steps = self._fetch()
        for index, terms in enumerate(steps, start=step - len(steps) + 1):
            self._look(index, terms)
        names = dict.fromkeys(name for terms in steps for name in terms)
        values = {name: _mean([t[name] for t in steps if name in t]) for name in names}
        now = time.monotonic()
        seconds = max(1e-9, now - self._since)
        values["images_per_s"] = round(len(steps) * self._images / seconds, 2)
        values["data_wait"] = round(self._waited / seconds, 4)
        self._terms, self._waited, self._since = [], 0.0, now
        return values

    def _fetch(self) -> list[dict[str, float]]:
        """The terms of every step, in one transfer from the device."""
        scalars = [value.float() for terms in self._terms for value in terms.values()]
        values = iter(torch.stack(scalars).tolist())
        return [{name: next(values) for name in terms} for terms in self._terms]

    @staticmethod
    def note(values: Mapping[str, float]) -> str:
        """The reading as a line for the progress display."""
        return (
            f"loss {values['loss']:.4f}  {values['images_per_s']:.0f} images/s  "
            f"data wait {values['data_wait']:.0%}"
        )


def _mean(values: list[float]) -> float:
    return fsum(values) / len(values)

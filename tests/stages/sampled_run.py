"""A finished run made of a few files, as far as sampling from it needs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

from pae_framework.recipe.models import Recipe
from pae_framework.registry import Registry
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.results import StageResults
from pae_framework.system.console import PlainConsole
from pae_framework.world import ONE_PROCESS

FILES = {
    "tokenizer": "tokenizer.safetensors",
    "latents": "statistics/latents_stats.safetensors",
    "generator": "weights.safetensors",
}


@contextmanager
def no_progress(total, done=0):
    yield SimpleNamespace(update=lambda done, note="": None)


@dataclass
class SampledRun:
    """In place of a StageContext; its folders lie in ``store``."""

    store: Path
    fingerprint: str = "a"
    registry: Registry | None = None
    recipe: Recipe = field(default_factory=lambda: Recipe.model_construct(generator=None))
    directory: Path = Path()
    console: PlainConsole = field(
        default_factory=lambda: PlainConsole(record=True, width=200, file=StringIO())
    )
    progress = staticmethod(no_progress)
    train_source = ()
    world = ONE_PROCESS

    def __post_init__(self):
        for stage, name in FILES.items():
            if not (path := self.store / stage / name).exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(name)

    @property
    def plan(self):
        return {name: PlannedStage(name, self.fingerprint, ()) for name in FILES}

    def results(self, stage):
        return StageResults(self.store / stage, None, "run the stage again")

    def file(self, stage, name):
        return self.results(stage).file(name)

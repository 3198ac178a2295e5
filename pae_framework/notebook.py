"""Runs from a notebook: what the commands do, by a few functions. No torch before it is needed.

::

    import pae_framework as pae

    run = pae.run("quickstart", ["seed=1"])       # or pae.open_run("runs/quickstart")
    latents = run.tokenizer.encode(images)
    images = run.sample(labels=[3, 7])

Legend: B images, S image side in px, (C, h, w) shape of a latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pae_framework.errors import UsageError
from pae_framework.launch.start import RunOptions, load_for_run, profile_of, run_recipe
from pae_framework.plugins import load_registry
from pae_framework.recipe.models import Recipe
from pae_framework.runs.opened import OpenedRun
from pae_framework.runs.opened import open_run as open_directory
from pae_framework.runs.run_metrics import Metrics, read_metrics
from pae_framework.system.console import PlainConsole

if TYPE_CHECKING:
    from torch import Tensor

    from pae_framework.contracts import Tokenizer
    from pae_framework.execution.context import StageContext
    from pae_framework.sampling.sampler import Sampler

BATCH = 64
"""Images that pass through a network at once."""


class Run:
    """A run directory. Networks are loaded when they are first used, and kept."""

    def __init__(self, opened: OpenedRun):
        self._opened = opened
        self._samplers: dict[tuple[str, bool], Sampler] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """Its directory."""
        return self._opened.directory.path

    @property
    def recipe(self) -> Recipe:
        """Its recipe, with every value filled in."""
        return self._opened.loaded.recipe

    def metrics(self) -> Metrics:
        """Its metrics, as in ``results.json``: name, label, value, std, protocol.

        Raises:
            UsageError: the recipe has no stage ``evaluate``, or it is not done.
        """
        self._opened.finished("evaluate")
        return read_metrics(self._opened.directory) or []

    @cached_property
    def tokenizer(self) -> RunTokenizer:
        """Its tokenizer, on the device that the recipe names.

        Raises:
            UsageError: the stage ``tokenizer`` is not done.
        """
        from pae_framework.execution.artifacts import trained_tokenizer

        return RunTokenizer(
            trained_tokenizer(self._context("tokenizer")), self.recipe.data.image_size
        )

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, by label."""
        return self._context("tokenizer").class_names

    def sample(
        self, labels: Sequence[int], guidance: float | None = None, **settings: Any
    ) -> Tensor:
        """Sample images (B, 3, S, S) uint8, one per label; those of ``pae sample`` with the labels.

        Image i depends only on its label, the seed and i.

        Args:
            labels: of the images.
            guidance: its scale; 1: off; None: the recipe's guidance.
            **settings: other keys of the recipe's ``sample``: ``steps``, ``solver``, ``seed``.

        Raises:
            UsageError: the generator is not finished, or a label or setting is invalid.
        """
        import torch

        from pae_framework.flow.flow_settings import SampleSettings
        from pae_framework.sampling.sample_to_folder import sampling_settings

        if unknown := settings.keys() - SampleSettings.model_fields.keys():
            known = ", ".join(sorted(SampleSettings.model_fields))
            raise UsageError(f"`sample` has no {', '.join(sorted(unknown))}; it has {known}")
        context = self._context("generator")
        count = len(context.class_names)
        numbers = list(labels) if isinstance(labels, Iterable) else [labels]
        if wrong := [x for x in numbers if not (isinstance(x, Integral) and 0 <= x < count)]:
            raise UsageError(
                f"there is no class {wrong[0]!r}; `labels` are numbers from 0 to {count - 1}; the "
                "names are in `run.class_names`"
            )
        chosen = sampling_settings(context.recipe, context.registry, guidance, settings)
        indices = torch.arange(len(numbers)).split(chosen.batch_size)
        classes = torch.tensor(numbers, dtype=torch.long).split(chosen.batch_size)
        sampler = self._sampler(context, chosen)
        batches = zip(classes, indices, strict=True)
        return torch.cat([sampler.images(some, which, chosen) for some, which in batches])

    def _sampler(self, context: StageContext, settings: Any) -> Sampler:
        from pae_framework.sampling.sampler import Sampler

        key = settings.precision, settings.compile
        if key not in self._samplers:
            recipe = context.recipe.model_copy(update={"sample": settings})
            self._samplers[key] = Sampler.of(replace(context, recipe=recipe))
        return self._samplers[key]

    def _context(self, stage: str) -> StageContext:
        from pae_framework.execution.context import StageContext, configure_torch

        configure_torch(self.recipe.runtime)
        return StageContext.of_finished_run(self._opened, stage, PlainConsole(stderr=True))


class RunTokenizer:
    """A trained tokenizer of images of side S; ``module`` is the network itself."""

    def __init__(self, module: Tokenizer, image_size: int):
        self.module, self._image_size = module, image_size

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, C, h, w), float32 on the CPU, not normalized.

        Args:
            images: (B, 3, S, S), uint8 or in [0, 1], of the recipe's size.

        Raises:
            UsageError: they have another shape or range.
        """
        import torch

        side = self._image_size
        if images.ndim != 4 or images.shape[1:] != (3, side, side):
            raise UsageError(f"images are {tuple(images.shape)}, not (B, 3, {side}, {side})")
        with torch.no_grad():
            parts = [
                self.module.encode(_in_unit_range(some.to(self._device))).latents.float().cpu()
                for some in images.split(BATCH)
            ]
        return torch.cat(parts)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, S, S) uint8 on the CPU of latents (B, C, h, w), not normalized.

        Raises:
            UsageError: the latents have another shape.
        """
        import torch

        from pae_framework.data.pixels import to_uint8

        shape = self.module.latent
        expected = (shape.channels, shape.side, shape.side)
        if latents.ndim != 4 or tuple(latents.shape[1:]) != expected:
            raise UsageError(
                f"latents are {tuple(latents.shape)}, not (B, {', '.join(map(str, expected))})"
            )
        with torch.no_grad():
            parts = [
                to_uint8(self.module.decode(some.to(self._device))).cpu()
                for some in latents.split(BATCH)
            ]
        return torch.cat(parts)

    @property
    def _device(self) -> Any:
        import torch

        weight = next(self.module.parameters(), None)
        return torch.device("cpu") if weight is None else weight.device


def _in_unit_range(images: Tensor) -> Tensor:
    """Images as floats in [0, 1]."""
    from pae_framework.data.pixels import to_float

    if not images.is_floating_point():
        return to_float(images)
    low, high = (bound.item() for bound in images.aminmax())
    if low < 0 or high > 1:
        raise UsageError(f"images are in [{low:g}, {high:g}], not in [0, 1]; clamp or rescale them")
    return images.float()


def open_run(path: str | Path) -> Run:
    """Open a run, or the member of a sweep, in a directory.

    Raises:
        UsageError: the directory holds no run, or a whole sweep.
        RunError: its ``run.json`` is damaged.
        RecipeError: its recipe no longer loads, e.g. because a plugin was removed.
    """
    return Run(open_directory(Path(path), load_registry()))


def run(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    **options: Any,
) -> Run:
    """Run every unfinished stage of a recipe, as ``pae run`` does, and open the run.

    Args:
        recipe: path of a recipe, or name of a shipped one.
        overrides: ``key.path=value``, as on the command line.
        plugins: plugins of one file each.
        **options: of :class:`~pae_framework.launch.start.RunOptions`: ``run_dir``, ``smoke``,
            ``processes`` ...

    Raises:
        UsageError: the recipe is a sweep, or a profile submits it, neither of which leaves one
            finished run: use ``pae run``; or an option is invalid.
        PaeError: as :func:`~pae_framework.launch.start.run_recipe`.
    """
    if unknown := options.keys() - RunOptions.__dataclass_fields__.keys():
        known = ", ".join(RunOptions.__dataclass_fields__)
        raise UsageError(f"pae.run has no option {', '.join(sorted(unknown))}; it has {known}")
    files, run_dir = [Path(file) for file in plugins], options.get("run_dir")
    folder = None if run_dir is None else Path(run_dir)
    loaded = load_for_run(recipe, overrides, load_registry(), files, folder)
    if loaded.recipe.sweep is not None:
        raise UsageError(f"{recipe} is a sweep; run it with `pae run`, then open its members")
    chosen = RunOptions(**options)
    if (profile := profile_of(loaded, chosen)) is not None:
        raise UsageError(
            f"{recipe} is submitted with the profile {profile.name}, which leaves no finished run "
            "to open; use `pae run`, or set launch=null"
        )
    if "command" not in options:
        chosen = replace(chosen, command=f"pae.run({str(recipe)!r}, {list(overrides)!r})")
    directory = run_recipe(loaded, chosen)
    return open_run(directory.path)

"""What components promise: each function describes how a promise is broken, or gives None.

The engine checks a component of a plugin with them before a stage uses it, and
:mod:`pae_framework.testing` checks it in the tests of its author.

Legend: B batch, N tokens, D token width, g grid side, S image side in px.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from pae_framework.config import EncoderConfig
from pae_framework.contracts import (
    Encoder,
    Features,
    LabeledImage,
    Metric,
    Modulator,
    Posterior,
)

Cell = tuple[int, int]
"""Row and column of a token in the grid."""

_METRIC_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_MIN_GRID = 3
"""Smallest grid for :func:`order_problem`: in a smaller one, chance could place a change."""


def first(*problems: str | None) -> str | None:
    """The first problem; None if there is none."""
    return next((problem for problem in problems if problem is not None), None)


def tensor_problem(
    found: object, shape: tuple[int, ...], what: str, dtype: torch.dtype | None = torch.float32
) -> str | None:
    """A finite tensor of a shape and dtype (None: any floating-point dtype) is promised."""
    if not isinstance(found, Tensor):
        return f"{what}: a {type(found).__name__}, not a tensor"
    if tuple(found.shape) != shape:
        return f"{what}: shape {tuple(found.shape)}, expected {shape}"
    if dtype is None and not found.is_floating_point():
        return f"{what}: {found.dtype}, not floating point"
    if dtype not in (None, found.dtype):
        return f"{what}: {found.dtype}, expected {dtype}"
    if found.is_floating_point() and not bool(found.isfinite().all()):
        return f"{what}: NaN or infinity"
    return None


def difference_problem(
    found: Tensor, expected: Tensor, tolerance: float, message: str
) -> str | None:
    """The largest difference must be at most ``tolerance`` times the largest expected value."""
    difference = (found.float() - expected.float()).abs().max().item()
    allowed = tolerance * expected.float().abs().max().item()
    if difference <= allowed:
        return None
    return f"{message} (largest difference {difference:.2g}, allowed {allowed:.2g})"


def rows_problem(
    compute: Callable[..., Tensor], inputs: Sequence[Tensor], what: str, tolerance: float
) -> str | None:
    """Row i of the output must depend on row i of the inputs only."""
    with torch.no_grad():
        together = compute(*inputs)[:1]
        alone = compute(*(x[:1] for x in inputs))
    message = (
        f"{what}: the result for an image must not depend on the other images of the batch; "
        "normalize within an image, never over the batch"
    )
    return difference_problem(together, alone, tolerance, message)


# --- encoders -------------------------------------------------------------------------------------


def attributes_problem(encoder: Encoder) -> str | None:
    """The attributes of an encoder must be set and agree with its config."""
    config = encoder.config
    if not isinstance(config, EncoderConfig):
        return "encoder.config must be an EncoderConfig"
    for name in ("grid", "width", "heads", "patch"):
        if type(value := getattr(encoder, name, None)) is not int or value <= 0:
            return f"encoder.{name} is {value!r}, not a positive integer"
    for what, promised, actual in (
        ("grid", config.token_grid(encoder.image_size), encoder.grid),
        ("width", config.token_width(), encoder.width),
        ("heads", config.token_heads(), encoder.heads),
    ):
        if promised not in (None, actual):
            return f"config.token_{what} gives {promised}, but encoder.{what} is {actual}"
    if encoder.width % encoder.heads:
        return f"{encoder.heads} heads do not divide the width {encoder.width}"
    for name in ("mean", "std"):
        if len(getattr(encoder, name, ())) != 3:
            return f"{name} must be three numbers, one for each channel"
    return None


def pixels_problem(encoder: Encoder, pixels: object, count: int) -> str | None:
    """The output of ``normalize`` for ``count`` images."""
    side = encoder.grid * encoder.patch
    what = "the output of normalize (its side is grid * patch)"
    return tensor_problem(pixels, (count, 3, side, side), what)


def features_problem(encoder: Encoder, features: object, count: int) -> str | None:
    """The output of ``forward`` for ``count`` images, of which the first two differ."""
    if not isinstance(features, Features):
        return f"forward must give a contracts.Features, not a {type(features).__name__}"
    shape = (count, encoder.grid**2, encoder.width)
    what = "the tokens (one for each cell of the grid, no class or register tokens)"
    problem = first(
        tensor_problem(features.tokens, shape, what),
        tensor_problem(features.pooled, (count, encoder.width), "the pooled features"),
    )
    if problem is None and torch.allclose(features.tokens[0], features.tokens[1]):
        return "two different images must not have equal tokens"
    return problem


@torch.no_grad()
def token_order_problem(encoder: Encoder, pixels: Tensor) -> str | None:
    """Token (row, column) must belong to the patch there, with its channels in the last axis.

    Changes one patch at a time and looks where the tokens change. An encoder that spreads every
    change over all tokens passes.

    Args:
        encoder: the encoder.
        pixels: one normalized image (1, 3, S', S').
    """
    grid, patch = encoder.grid, encoder.patch
    cells = probe_cells(grid)
    ramp = torch.linspace(0, 2, patch * patch, device=pixels.device).view(patch, patch)
    changed = pixels.repeat(1 + len(cells), 1, 1, 1)
    for image, (row, column) in zip(changed[1:], cells, strict=True):
        image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] += ramp
    return _changed_tokens_problem(encoder(changed).tokens, grid, cells)


@torch.no_grad()
def token_map_problem(
    modulator: Modulator, pixels: Tensor, tokens: Tensor, grid: int
) -> str | None:
    """The same for the tokens of a modulator, of which one input token changes at a time.

    Args:
        modulator: the modulator.
        pixels: one normalized image (1, 3, S', S').
        tokens: its tokens (1, N, D).
        grid: tokens per side.
    """
    cells = probe_cells(grid)
    changed = tokens.repeat(1 + len(cells), 1, 1)
    for image, (row, column) in zip(changed[1:], cells, strict=True):
        image[row * grid + column] *= -1
    output = modulator(pixels.repeat(len(changed), 1, 1, 1), changed)
    return _changed_tokens_problem(output, grid, cells)


def _changed_tokens_problem(tokens: Tensor, grid: int, cells: Sequence[Cell]) -> str | None:
    """Tokens (1 + K, N, D) of one image, and of K images with a change in one cell each."""
    change = (tokens[1:] - tokens[:1]).float().square()  # (K, N, D)
    patches = [row * grid + column for row, column in cells]
    by_token, by_channel = change.sum(2), change.sum(1)
    square = bool(cells) and by_token.shape == by_channel.shape  # N = D
    if square and by_channel.argmax(1).tolist() == patches != by_token.argmax(1).tolist():
        return "the tokens are (B, D, N), expected (B, N, D): a patch changes one channel"
    return order_problem(by_token.unflatten(1, (grid, grid)), cells, "the tokens")


# --- order of a grid ------------------------------------------------------------------------------


def probe_cells(grid: int) -> list[Cell]:
    """Cells off the diagonal, whose change shows the order of a grid; none if it is too small."""
    if grid < _MIN_GRID:
        return []
    last, middle = grid - 1, grid // 2
    return [(0, last), (last, 0), (middle, 0), (0, middle)]


def order_problem(change: Tensor, cells: Sequence[Cell], what: str) -> str | None:
    """The change of each input cell must not land in another cell of the output.

    Args:
        change: (K, g, g), how much each output cell changes with each of K input cells.
        cells: the K input cells.
        what: names the output.
    """
    if not cells:
        return None
    grid = change.shape[-1]
    share, index = (change.flatten(1) / change.flatten(1).sum(1, keepdim=True)).max(1)
    found = [divmod(position, grid) for position in index.tolist()]
    if found == [(column, row) for row, column in cells]:
        return f"{what} have rows and columns swapped; the order is row by row"
    distances = [
        max(abs(row - at[0]), abs(column - at[1]))
        for (row, column), at in zip(cells, found, strict=True)
    ]
    # A distance of 1 alone may come from a convolution without padding.
    if min(distances) > 0 and max(distances) > 1 and bool((share > 0.5).all()):
        return f"{what} are in another order: cell {cells[0]} changes with cell {found[0]}"
    return None


@torch.no_grad()
def map_order_problem(
    compute: Callable[[Tensor], Tensor], x: Tensor, grid: int, what: str
) -> str | None:
    """Each cell of a map must determine most of the output at its own place.

    Args:
        compute: maps (B, ...) of the input's kind to maps (B, C, H, W).
        x: one input, (1, C, g, g) or tokens (1, N, D).
        grid: tokens per side; divides H and W.
        what: names the output.
    """
    cells = probe_cells(grid)
    changed = x.repeat(1 + len(cells), *(1 for _ in x.shape[1:]))
    for one, (row, column) in zip(changed[1:], cells, strict=True):
        if x.ndim == 3:
            one[row * grid + column] *= -1
        else:
            one[:, row, column] *= -1
    output = compute(changed).float()  # (1 + K, C, H, W)
    change = (output[1:] - output[:1]).square().sum(1)  # (K, H, W)
    return order_problem(_cell_sums(change, grid), cells, what)


def _cell_sums(change: Tensor, grid: int) -> Tensor:
    """Sums (K, g, g) over the cells of maps (K, H, W)."""
    return change.unflatten(2, (grid, -1)).unflatten(1, (grid, -1)).sum((2, 4))


# --- others ---------------------------------------------------------------------------------------


def posterior_problem(posterior: object, shape: tuple[int, ...]) -> str | None:
    """The output of a bottleneck, with latents of a shape (B, C, h, w)."""
    if not isinstance(posterior, Posterior):
        return f"forward must give a contracts.Posterior, not a {type(posterior).__name__}"
    moments = {"mean": posterior.mean, "logvar": posterior.logvar}
    given = {name: moment for name, moment in moments.items() if moment is not None}
    if "logvar" in given and "mean" not in given:
        return "a posterior with a logvar must also have a mean"
    return first(
        tensor_problem(posterior.latents, shape, "the latents", dtype=None),
        *(tensor_problem(x, shape, f"the {name}", dtype=None) for name, x in given.items()),
    )


def item_problem(item: object, size: int, classes: int, what: str) -> str | None:
    """An item of a data source with images of ``size`` px."""
    if not isinstance(item, LabeledImage):
        return f"{what} is a {type(item).__name__}, not a LabeledImage"
    if problem := tensor_problem(item.image, (3, size, size), f"the image of {what}", torch.uint8):
        return problem
    if type(item.label) is not int or not 0 <= item.label < classes:
        return f"the label of {what} is {item.label!r}, not an int from 0 to {classes - 1}"
    return None


def class_names_problem(names: object, promised: int | None) -> str | None:
    """The class names of a data source whose config promises a number of classes, if any."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        return f"class_names is {names!r}, not a sequence of names"
    if promised not in (None, len(names)):
        return f"config.class_count() is {promised}, but there are {len(names)} class_names"
    if not names or not all(isinstance(name, str) and name for name in names):
        return f"class_names is {list(names)!r}, not a sequence of names"
    if len(set(names)) != len(names):
        return f"class names must be unique: {list(names)}"
    return None


def metrics_problem(metrics: object) -> str | None:
    """What an evaluator gives."""
    if not isinstance(metrics, list) or not metrics:
        return f"evaluate must give a list of metrics, not {metrics!r:.60}"
    if problem := first(*map(metric_problem, metrics)):
        return problem
    keys = Counter(f"{x.name} at {json.dumps(dict(x.at), sort_keys=True)}" for x in metrics)
    if twice := [key for key, count in keys.items() if count > 1]:
        return f"more than one metric for {', '.join(twice)}; distinguish them by `at`"
    return None


def metric_problem(metric: object) -> str | None:
    """One metric."""
    if not isinstance(metric, Metric):
        return f"{metric!r:.60} is no contracts.Metric"
    name, value, std = metric.name, metric.value, metric.std
    if not isinstance(name, str) or not _METRIC_NAME.fullmatch(name):
        return f"the name of the metric is {name!r}, not `group/metric`"
    if not isinstance(metric.label, str) or not metric.label.strip():
        return f"{name} has no label, the heading of its column"
    if type(value) is not float:
        return f"{name} is {value!r}, not a float"
    if not math.isfinite(value):
        return f"{name} is {value}; leave out metrics without a value"
    if std is not None and not (isinstance(std, float) and math.isfinite(std) and std >= 0):
        return f"{name} has the standard deviation {std!r}"
    if not metric.protocol:
        return f"{name} has no protocol, which says what was measured and how"
    try:
        json.dumps(asdict(metric), allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"{name} cannot be written as JSON: {error}"
    return None

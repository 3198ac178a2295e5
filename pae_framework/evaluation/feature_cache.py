"""Features of the images of a run, each batch computed once and kept under what made it.

They lie in ``extracted/`` of the run's store, in a folder for each network, whose name is a hash of
what features depend on besides pixels: the network, its weights, its precision, the versions of
libraries. A file is named by a hash of the pixels, so no change makes it stale, and all evaluators,
stages and members of a sweep share it. The folder may be removed when no run is under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pae_framework.evaluation.shared_batches import BATCH, SharedBatches
from pae_framework.metrics.feature_files import read_features, tensors_digest, write_features
from pae_framework.system.file_errors import require_space
from pae_framework.system.files import json_digest
from pae_framework.tensor_files import tensor_bytes

FOLDER = "extracted"
"""Name of their folder in the store."""
PART = 40 * BATCH
"""Images whose features are in memory at once."""
LIBRARIES = ("torch", "torch-fidelity", "timm", "open-clip-torch")
"""Distributions whose code computes features."""
_VERSION = 1
"""Increase it if the same network computes other features from the same images."""

_Pairs = Sequence[tuple[Path, Tensor]]
"""Batches of images, each with the file of its features."""


def network_folder(store: Path, network: Mapping[str, Any], device: torch.device) -> Path:
    """Folder of the features by one network; ``network``: it and its weights, in JSON types."""
    made_by = {
        "network": network,
        "device": device.type,
        "tf32": device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32,
        "versions": {name: version(name) for name in LIBRARIES},
        "batch": BATCH,
        "version": _VERSION,
    }
    return store / FOLDER / json_digest(made_by)


class CachedExtraction:
    """Applies a function of :class:`SharedBatches` to images, unless its results are there.

    Args:
        shared: has the function.
        function: its name.
        arguments: its further arguments.
        folder: of the results; None: they are not kept.
    """

    def __init__(
        self,
        shared: SharedBatches,
        function: str,
        arguments: Sequence[str] = (),
        folder: Path | None = None,
    ):
        self._shared, self._function = shared, function
        self._arguments, self._folder = arguments, folder

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features (M, ...) on the CPU of uint8 images (M, 3, S, S).

        Raises:
            WriteError: there is no space for them.
        """
        return self._shared.join(self._batches(images), len(images))

    def _batches(self, images: Tensor) -> Iterator[Sequence[Tensor]]:
        if self._folder is None:
            yield from self._shared.stream(self._function, images.split(BATCH), *self._arguments)
            return
        batches = images.split(BATCH)
        folder, step = self._folder, PART // BATCH
        files = [folder / f"{tensors_digest({'': batch})}.safetensors" for batch in batches]
        pairs = list(zip(files, batches, strict=True))
        for start in range(0, len(pairs), step):
            yield from self._part(folder, pairs[start : start + step], pairs[start + step :])

    def _part(self, folder: Path, pairs: _Pairs, later: _Pairs) -> Iterator[Sequence[Tensor]]:
        """Features of some batches, each with its file; ``later``: the batches after them."""
        found = {file: _read(file) for file, _ in pairs}
        missing = {file: batch for file, batch in pairs if found[file] is None}
        if missing:
            results = self._shared.stream(self._function, list(missing.values()), *self._arguments)
            with closing(results):
                for number, (file, result) in enumerate(zip(missing, results, strict=True)):
                    if number == 0:
                        row = tensor_bytes(column[:1] for column in result)
                        lacking = missing | {f: b for f, b in later if not f.is_file()}
                        require_space(folder, sum(map(len, lacking.values())) * row)
                    write_features(file, {str(n): column for n, column in enumerate(result)})
                    found[file] = result
        for file, _ in pairs:
            features = found[file]
            assert features is not None
            yield features


def _read(file: Path) -> Sequence[Tensor] | None:
    features = read_features(file)
    return None if features is None else [features[str(n)] for n in range(len(features))]

"""Memory of an evaluation against the number of images: ``python -m benchmarks.evaluation_memory``.

Test images are read, encoded and decoded, and their features and those of the reconstructions
extracted, by networks that do next to nothing. Each number of images has a process of its own. Its
peak is of memory that the system cannot take back: pages of mapped files do not count.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import torch

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.evaluation import stored_rows
from pae_framework.evaluation.inputs import RunInputs
from pae_framework.metrics.feature_statistics import FeatureStatistics
from pae_framework.metrics.frechet import frechet_distance

SIDE = 32
_SECONDS = 0.0005
"""Between two looks at the memory."""


class Synthetic(DataSource):
    """Image i has a level of its own."""

    class_names = ("one",)

    def __init__(self, count: int):
        super().__init__(DataSourceConfig(), SIDE)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> LabeledImage:
        return LabeledImage(torch.full((3, SIDE, SIDE), index % 251, dtype=torch.uint8), 0)


class Identity:
    """A tokenizer whose latents are the pixels."""

    def encode(self, x: torch.Tensor) -> SimpleNamespace:
        """Latents (B, 3, S, S) of images."""
        return SimpleNamespace(latents=x)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The images."""
        return latents


class Levels(torch.nn.Module):
    """Features are the mean colors."""

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """The images."""
        return x

    def pool(self, x: torch.Tensor, pooling: str) -> torch.Tensor:
        """Mean colors (B, 3)."""
        return x.mean((2, 3))


def evaluate(count: int, folder: Path) -> float:
    """Frechet distance of the reconstructions of ``count`` images, which are the images."""
    config = SimpleNamespace(version=1, model_dump=lambda mode: {})
    component = SimpleNamespace(
        use="levels", config=config, pooling="mean", resize=None, model_dump=lambda **_: {}
    )
    data = SimpleNamespace(test_images=None, test=component, image_size=SIDE)
    tokenizer = SimpleNamespace(
        **{"encodes": True, "decodes": True, "perceptual": None, "train_encoder": False},
        train=SimpleNamespace(workers=0),
    )
    recipe = SimpleNamespace(
        data=data,
        seed=0,
        generator=None,
        extractor=component,
        tokenizer=tokenizer,
        composed=tokenizer,
    )
    context = SimpleNamespace(
        recipe=recipe,
        test_source=Synthetic(count),
        device=torch.device("cpu"),
        directory=folder / "evaluate",
        plan={},
        planned=SimpleNamespace(inputs=()),
        seed=lambda train: 0,
    )
    inputs = RunInputs(context, store=folder)  # type: ignore[arg-type]
    vars(inputs).update(tokenizer=Identity(), _extractor_network=Levels())
    reference, found = FeatureStatistics(3), FeatureStatistics(3)
    for images, statistics in ((inputs.images, reference), (inputs.reconstructions, found)):
        for part in images.split(1000):
            statistics.update(inputs.extractor(part))
    return frechet_distance(found, reference)


def peak(count: int) -> int:
    """Peak memory in bytes of an evaluation of ``count`` images, in this process."""
    stored_rows.IN_MEMORY = 1 << 20
    with tempfile.TemporaryDirectory() as folder:
        evaluate(500, Path(folder))  # whatever is loaded at first use
    with tempfile.TemporaryDirectory() as folder, _watching() as peaks:
        evaluate(count, Path(folder))
    return max(peaks)


@contextmanager
def _watching() -> Iterator[list[int]]:
    peaks, ended = [_memory()], Event()

    def watch() -> None:
        while not ended.wait(_SECONDS):
            peaks[0] = max(peaks[0], _memory())

    thread = Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _memory() -> int:
    """Bytes of this process that are not pages of files."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def peak_in_new_process(count: int) -> int:
    """:func:`peak` in a process of its own, which nothing else has made larger."""
    command = [sys.executable, "-m", "benchmarks.evaluation_memory", "--one", str(count)]
    # The C library gives freed tensors back at once, so that they do not count.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


def main() -> None:
    """Print the peak for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 20_000, 50_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(peak(arguments.one))
        return
    for count in arguments.images:
        size = count * 3 * SIDE**2
        found = peak_in_new_process(count)
        print(f"{count:>7} images of {size / 2**20:6.1f} MiB: peak {found / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()

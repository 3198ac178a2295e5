"""Encode the training images into shards, as a pipeline.

Processes read and crop images, the device encodes them, and a thread writes the shard before. So
the slowest of the three determines the speed; :class:`Throughput` says which it is.

Legend: B batch, S image side in px.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from pae_framework.contracts import DataSource
from pae_framework.data.images import read_images
from pae_framework.data.pixels import to_float_on
from pae_framework.data.read_ahead import read_ahead
from pae_framework.system.background import Background

LOADING, ENCODING, WRITING = "loading", "encoding", "writing"

ReadBatch = tuple[int, int, Tensor, Tensor]
"""Shard, index after the last image, images (B, 3, S, S) uint8 and labels (B,)."""


@dataclass
class Throughput:
    """Images that this process encoded, and what it waited for meanwhile, in seconds."""

    images: int = 0
    seconds: float = 0.0
    waited: dict[str, float] = field(default_factory=lambda: {LOADING: 0.0, WRITING: 0.0})

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add the time within the block to all."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    @contextmanager
    def waiting(self, reason: str) -> Iterator[None]:
        """Add the time within the block to what was waited for."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited[reason] += time.perf_counter() - start

    def summary(self) -> dict[str, Any]:
        """Images per second, and shares of the time: what is not waited for is encoding."""
        shares = {reason: seconds / self.seconds for reason, seconds in self.waited.items()}
        shares[ENCODING] = 1 - sum(shares.values())
        return {
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self.images / self.seconds, 2),
            "shares": {reason: round(share, 3) for reason, share in sorted(shares.items())},
        }


@dataclass(frozen=True)
class EncodedShards:
    """What is to be encoded, how, and where to.

    Args:
        source: the images.
        shard_size: images of a shard; the last one may have fewer.
        batch_size: images encoded at once, of one shard.
        workers: processes that read ahead; 0: none.
        device: encodes.
        flip: whether the mirrored images are encoded, too.
        encode: maps images (B, 3, S, S) in [0, 1], on the device, to what is stored: (B, ...), on
            the device.
        is_complete: whether the shard with a number is there, with so many rows.
        write: writes the shard with a number: (n, ...) of the images, of the mirrored images (of
            the images again without ``flip``), and the labels (n,), all on the CPU. It is called
            in a thread.
    """

    source: DataSource
    shard_size: int
    batch_size: int
    workers: int
    device: torch.device
    flip: bool
    encode: Callable[[Tensor], Tensor]
    is_complete: Callable[[int, int], bool]
    write: Callable[[int, Tensor, Tensor, Tensor], None]

    def __len__(self) -> int:
        """Number of shards."""
        return -(-len(self.source) // self.shard_size)

    def images(self, shard: int) -> range:
        """Indices of the images of a shard."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, len(self.source)))

    def pipeline(
        self, throughput: Throughput, shards: Iterable[int], stopping: Callable[[], bool]
    ) -> Iterator[int]:
        """Encode and write the shards that are not complete, and yield each that is.

        A pipeline as :data:`~pae_framework.execution.items.Pipeline` describes it.

        Args:
            throughput: is added to.
            shards: numbers; the next one is taken when its images can be read.
            stopping: whether shards of which no image is encoded yet shall be dropped.
        """
        complete: deque[int] = deque()
        with Background(self._write) as writer, torch.no_grad():
            made: list[tuple[Tensor, Tensor, Tensor]] = []
            for shard, stop, images, labels in self._timed(throughput, shards, complete):
                if not made and stopping():
                    break
                with throughput.measured():
                    made.append((*self.encoded(images), labels))
                    throughput.images += len(images)
                    if stop == self.images(shard).stop:
                        self._finish_encoding()
                        with throughput.waiting(WRITING):
                            complete += _some(writer.take())
                        writer.start(shard, made)
                        made = []
                complete += _some(writer.take(wait=False))
                yield from _emptied(complete)
            with throughput.measured(), throughput.waiting(WRITING):
                complete += _some(writer.take())
        yield from _emptied(complete)

    def _batches_of_missing(
        self, shards: Iterable[int], complete: deque[int]
    ) -> Iterator[tuple[int, range]]:
        """Shard and indices of each batch of the shards that are not complete."""
        for shard in shards:
            images = self.images(shard)
            if self.is_complete(shard, len(images)):
                complete.append(shard)
                continue
            for start in range(0, len(images), self.batch_size):
                yield shard, images[start : start + self.batch_size]

    def _timed(
        self, throughput: Throughput, shards: Iterable[int], complete: deque[int]
    ) -> Iterator[ReadBatch]:
        """:meth:`batches`, with the time that they take."""
        batches = self.batches(shards, complete)
        while True:
            with throughput.measured(), throughput.waiting(LOADING):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def batches(
        self, shards: Iterable[int], complete: deque[int] | None = None
    ) -> Iterator[ReadBatch]:
        """The batches of some shards.

        Args:
            shards: numbers.
            complete: those that are complete are added to it, and not read.
        """
        keys = self._batches_of_missing(shards, deque() if complete is None else complete)
        if (first := next(keys, None)) is None:
            return  # no process is started to read nothing
        read = partial(_read_batch, self.source)
        yield from read_ahead(read, chain([first], keys), self.workers)

    def encoded(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What is stored of images (B, 3, S, S) uint8 and of their mirror images, on the CPU.

        On a GPU both are still being computed and copied: see :meth:`_finish_encoding`.
        """
        images = to_float_on(images, self.device)
        plain = _to_cpu(self.encode(images))
        return plain, _to_cpu(self.encode(images.flip(-1))) if self.flip else plain

    def _finish_encoding(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _write(self, shard: int, made: list[tuple[Tensor, Tensor, Tensor]]) -> int:
        plain, mirrored, labels = (torch.cat(parts) for parts in zip(*made, strict=True))
        self.write(shard, plain, mirrored, labels)
        return shard


def _read_batch(source: DataSource, key: tuple[int, range]) -> ReadBatch:
    shard, indices = key
    # Numbers and tensors only: pinning memory would make a list of a range.
    return shard, indices.stop, *read_images(source, indices)


def _to_cpu(values: Tensor) -> Tensor:
    """Values on the CPU; if they are on a GPU, in pinned memory and not before it comes to it."""
    if values.device.type == "cpu":
        return values
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return pinned.copy_(values, non_blocking=True)


def _some(shard: int | None) -> tuple[int, ...]:
    return () if shard is None else (shard,)


def _emptied(numbers: deque[int]) -> Iterator[int]:
    while numbers:
        yield numbers.popleft()

"""The pipeline of encoded shards: what runs beside what, what is finished, what is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.data.pixels import to_float, to_float_on
from pae_framework.errors import DataError
from pae_framework.execution.encoded_shards import EncodedShards, Throughput
from pae_framework.system.background import Background

SECONDS = 20.0
"""Most that one part waits for another."""


class Numbered(DataSource):
    """Twelve images that are all their number."""

    class_names = ("only",)

    def __init__(self, pause: float = 0.0):
        super().__init__(DataSourceConfig(), 2)
        self.pause = pause

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> LabeledImage:
        time.sleep(self.pause)
        return LabeledImage(torch.full((3, 2, 2), index, dtype=torch.uint8), 0)


@dataclass
class Recorded:
    """Shards of four images, and what happened in which order."""

    encode_pause: float = 0.0
    write_pause: float = 0.0
    source: Numbered = field(default_factory=Numbered)
    events: list[str] = field(default_factory=list)
    before_write: Callable[[int], None] = lambda shard: None
    before_encode: Callable[[int], None] = lambda image: None
    throughput: Throughput = field(default_factory=Throughput)

    def run(
        self,
        shards: range = range(3),
        stopping: Callable[[], bool] = lambda: False,
        workers: int = 0,
    ) -> Iterator[int]:
        yield from self.shards(workers).pipeline(self.throughput, shards, stopping)

    def shards(self, workers: int) -> EncodedShards:
        return EncodedShards(
            self.source,
            shard_size=4,
            batch_size=2,
            workers=workers,
            device=torch.device("cpu"),
            flip=False,
            encode=self.encode,
            is_complete=lambda shard, rows: f"wrote {shard}" in self.events,
            write=self.write,
        )

    def encode(self, images: Tensor) -> Tensor:
        first = round(float(images[0, 0, 0, 0]) * 255)
        self.before_encode(first)
        time.sleep(self.encode_pause)
        self.events.append(f"encoded {first}")
        return images

    def write(self, shard: int, plain: Tensor, mirrored: Tensor, labels: Tensor) -> None:
        self.before_write(shard)
        time.sleep(self.write_pause)
        expected = torch.arange(4 * shard, 4 * shard + 4) / 255
        assert torch.equal(plain[:, 0, 0, 0], expected)
        self.events.append(f"wrote {shard}")


def test_a_shard_is_written_while_the_next_one_is_encoded() -> None:
    """The first write ends only after the next shard's first batch was encoded."""
    encoded_next = threading.Event()
    recorded = Recorded()

    def before_write(shard: int) -> None:
        if shard == 0:
            assert encoded_next.wait(SECONDS)

    def before_encode(image: int) -> None:
        if image == 4:
            encoded_next.set()

    recorded.before_write, recorded.before_encode = before_write, before_encode
    assert list(recorded.run()) == [0, 1, 2]


def test_no_more_than_one_shard_waits_to_be_written() -> None:
    """The memory of two shards: encoding the third begins when the first is written."""
    recorded = Recorded(write_pause=0.1)
    list(recorded.run())
    assert recorded.events.index("wrote 0") < recorded.events.index("encoded 8")


def test_an_error_of_the_thread_is_raised_and_nothing_more_is_written() -> None:
    recorded = Recorded()

    def full(shard: int) -> None:
        if shard == 1:
            raise DataError("disk full")

    recorded.before_write = full
    done: list[int] = []
    with pytest.raises(DataError, match="disk full"):
        done.extend(recorded.run())
    assert done == [0]
    assert "wrote 2" not in recorded.events


def test_when_encoding_fails_the_write_under_way_is_finished() -> None:
    recorded = Recorded(write_pause=0.2)

    def failing(image: int) -> None:
        if image == 4:
            raise DataError("4.png")

    recorded.before_encode = failing
    with pytest.raises(DataError, match=r"4\.png"):
        list(recorded.run())
    assert "wrote 0" in recorded.events


@pytest.mark.parametrize("workers", [0, 2])
def test_at_a_stop_what_is_begun_is_finished_and_what_is_only_read_is_dropped(
    workers: int,
) -> None:
    recorded = Recorded()

    def stopping() -> bool:
        return "encoded 4" in recorded.events  # amid shard 1

    assert list(recorded.run(stopping=stopping, workers=workers)) == [0, 1]
    assert "encoded 6" in recorded.events
    assert "encoded 8" not in recorded.events
    assert list(recorded.run()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("slow", "limit"),
    [
        (Recorded(source=Numbered(0.02)), "loading"),
        (Recorded(encode_pause=0.04), "encoding"),
        (Recorded(write_pause=0.1), "writing"),
    ],
    ids=["reading", "encoding", "writing"],
)
def test_the_slowest_part_has_the_largest_share(slow: Recorded, limit: str) -> None:
    begun = time.perf_counter()
    list(slow.run())
    elapsed = time.perf_counter() - begun
    found = slow.throughput.summary()
    assert found["images"] == 12
    assert found["seconds"] == pytest.approx(elapsed, rel=0.3)
    assert found["images_per_s"] == pytest.approx(12 / found["seconds"], rel=0.05)
    assert sum(found["shares"].values()) == pytest.approx(1, abs=0.01)
    assert max(found["shares"], key=found["shares"].get) == limit
    assert found["shares"][limit] > 0.5


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_read_survives_pinning(workers: int) -> None:
    """torch pins tensors, keeps numbers, and turns tuples and other sequences into lists."""
    recorded = Recorded()
    batches = list(recorded.shards(workers).batches(range(3)))
    assert [(int(shard), int(stop), len(images)) for shard, stop, images, _ in batches] == [
        (index // 2, 2 * index + 2, 2) for index in range(6)
    ]
    assert all(isinstance(part, int | Tensor) for batch in batches for part in batch)


def test_images_on_the_device_have_the_bits_of_those_that_the_cpu_divides() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_float_on(levels, torch.device("cpu")), to_float(levels))
    assert to_float_on(levels, torch.device("meta")).device.type == "meta"


def test_a_thread_does_one_call_at_a_time_and_gives_its_result_once() -> None:
    running = threading.Event()
    release = threading.Event()

    def call(value: int) -> int:
        running.set()
        assert release.wait(SECONDS)
        return value

    with Background(call) as background:
        assert background.take() is None
        background.start(3)
        assert running.wait(SECONDS)
        assert background.take(wait=False) is None
        with pytest.raises(AssertionError):
            background.start(4)
        release.set()
        assert background.take() == 3
        assert background.take() is None

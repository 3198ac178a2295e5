"""A process gets its batches of images in order, read ahead or not, and those of nobody else."""

from __future__ import annotations

import pytest
import torch

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.errors import DataError
from pae_framework.evaluation.ordered_reads import OrderedReads
from pae_framework.evaluation.shared_batches import BATCH


class Numbers(DataSource):
    """Image i is of the gray i mod 251, and of the class i mod 7."""

    class_names = tuple("abcdefg")
    broken: int | None = None

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> LabeledImage:
        if index == self.broken:
            raise DataError(f"image {index} is damaged")
        return LabeledImage(torch.full((3, 2, 2), index % 251, dtype=torch.uint8), index % 7)


SOURCE = Numbers(DataSourceConfig(), 2)
INDICES = [3 * n for n in range(4 * BATCH + 10)]


def reads(step: int = 1, workers: int = 0, source: DataSource = SOURCE) -> OrderedReads:
    return OrderedReads(lambda: source, lambda: INDICES, step, lambda: workers)


def batches() -> tuple[torch.Tensor, ...]:
    return torch.tensor(INDICES).split(BATCH)


def check(read: OrderedReads, batch: torch.Tensor) -> None:
    images, labels = read(batch)
    assert torch.equal(images[:, 0, 0, 0], (batch % 251).to(torch.uint8))
    assert torch.equal(labels, batch % 7)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [1, 2, 5, 9])
def test_each_process_reads_every_nth_batch(step: int, workers: int) -> None:
    for rank in range(min(step, 2)):
        read = reads(step, workers)
        for batch in batches()[rank::step]:
            check(read, batch)


@pytest.mark.parametrize("order", [[2, 3, 4], [0, 1, 0, 1, 2], [4, 0], [3, 3]], ids=str)
def test_it_may_begin_with_any_batch_and_begin_again(order: list[int]) -> None:
    read = reads()
    for number in order:
        check(read, batches()[number])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_an_error_of_its_batch(workers: int) -> None:
    source = Numbers(DataSourceConfig(), 2)
    source.broken = INDICES[BATCH + 1]
    read = reads(workers=workers, source=source)
    check(read, batches()[0])
    with pytest.raises(DataError, match=f"image {source.broken} is damaged"):
        read(batches()[1])

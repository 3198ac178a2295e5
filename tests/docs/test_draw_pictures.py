"""Pictures of the documentation."""

from __future__ import annotations

import numpy as np
import torch

from docs.draw_pictures import by_class


def test_a_row_per_class_with_its_name_to_the_left() -> None:
    values = torch.tensor([10, 20, 30], dtype=torch.uint8)
    images, labels = values.view(3, 1, 1, 1).expand(3, 3, 2, 2), torch.tensor([1, 0, 1])
    picture = np.asarray(by_class(images, labels, ["ant", "a" * 200], per_class=2))
    side = 64  # images of 2 px are enlarged 32 times
    right = picture[:, -2 * side - 2 :]  # two images and a gap of 2 px
    assert right[0, 0, 0] == 20
    assert right[side + 2, 0, 0] == 10
    assert right[side + 2, side + 2, 0] == 30
    names = picture[:, : -2 * side - 2 - 2]
    assert (names[..., 3] > 0).any()

"""The frozen encoder's tokens of a training step, shared by the networks that take the step."""

from __future__ import annotations

from torch import Tensor


class StepTokens:
    """Tokens (B, N, D) of batches of images (B, 3, S, S), until they are taken.

    Batches are told apart by their memory, so images must not be changed in place meanwhile.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def keep(self, images: Tensor, tokens: Tensor) -> None:
        """Keep the tokens of these images."""
        # With the images, so that their memory is not reused while its address is a key.
        self._kept[memory(images)] = (images, tokens)

    def take(self, images: Tensor) -> Tensor | None:
        """The tokens of these images, which are not kept any longer; None if there are none."""
        _, tokens = self._kept.pop(memory(images), (None, None))
        return tokens

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()


def memory(images: Tensor) -> tuple[object, ...]:
    """The memory of a tensor as a key; a detached tensor has the same."""
    return images.data_ptr(), images.shape, images.stride(), images.dtype, images.device
